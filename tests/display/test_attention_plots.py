import numpy as np
import pytest
import torch

from dimgpt.display.attention_plots import plot_attention
from dimgpt.model.attention import visible


def weights_of(num_heads, num_tokens, window):
    mask = visible(num_tokens, num_tokens, window, "cpu").float()
    return (mask / mask.sum(dim=-1, keepdim=True)).repeat(num_heads, 1, 1)


def drawn(figure):
    return [axes for axes in figure.axes if axes.get_visible() and axes.get_title()]


@pytest.mark.slow
def test_every_head_is_drawn_or_the_one_that_is_asked_for():
    weights = weights_of(6, 10, 4)
    figure = plot_attention(weights, ["a"] * 10, window_size=4)
    assert [axes.get_title() for axes in drawn(figure)] == [f"head {n}" for n in range(6)]
    (axes,) = drawn(plot_attention(weights, list("abcdefghij"), window_size=4, head=5))
    assert axes.get_title() == "head 5"
    assert [label.get_text() for label in axes.get_yticklabels()] == list("abcdefghij")
    np.testing.assert_array_equal(axes.images[0].get_array(), weights[5])


def test_the_line_runs_between_what_a_token_sees_and_what_it_does_not():
    (axes,) = drawn(plot_attention(weights_of(1, 10, 4), ["a"] * 10, window_size=4, head=0))
    (line,) = axes.lines
    assert (line.get_xdata()[0], line.get_ydata()[0]) == (-0.5, 3.5)  # row 4 sees from 0 on
    assert (line.get_xdata()[-2], line.get_ydata()[-2]) == (4.5, 8.5)  # row 9 sees from 5 on


@pytest.mark.parametrize("window", [None, 9, 50])
def test_no_line_is_drawn_where_the_window_covers_all(window):
    (axes,) = drawn(plot_attention(torch.ones(1, 10, 10), ["$a$"] * 10, window_size=window))
    assert not axes.lines


def test_a_head_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="head is 2: the layer has heads from 0 to 1"):
        plot_attention(weights_of(2, 3, None), list("abc"), window_size=None, head=2)
