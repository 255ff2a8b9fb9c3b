import json
import math
import subprocess
import sys
from types import SimpleNamespace

import pytest

from dimgpt.display.plots import LivePlot, plot_history

VALIDATION = {"kind": "validation", "step": 2, "tokens": 2e6, "loss": 2.5, "accuracy": 0.25}


def step(number):
    return {
        "kind": "step",
        "step": number,
        "tokens": number * 1e6,
        "loss": 5.0 / number,
        "loss_average": 5.0,
        "accuracy": 0.1 * number,
        "accuracy_average": 0.1,
    }


@pytest.fixture
def history(tmp_path):
    path = tmp_path / "history.jsonl"

    def write(*records, rest=b""):
        lines = [json.dumps(record).encode() + b"\n" for record in records]
        path.write_bytes(b"".join(lines) + rest)
        return path

    return write


def curves(figure, axes):
    return {line.get_label(): line.get_xydata().tolist() for line in figure.axes[axes].lines}


def test_loss_and_accuracy_are_drawn_against_million_tokens(history):
    start = {"kind": "start", "step": 0, "tokens": 0}
    sample = {"kind": "sample", "step": 2, "tokens": 2e6, "text": "x"}
    figure = plot_history(history(start, step(1), step(2), VALIDATION, sample), title="T")
    assert curves(figure, 0) == {
        "train": [[1, 5.0], [2, 2.5]],
        "average": [[1, 5.0], [2, 5.0]],
        "validation": [[2, 2.5]],
    }
    assert curves(figure, 1)["validation"] == [[2, 0.25]]
    assert figure.get_suptitle() == "T"


@pytest.mark.slow
@pytest.mark.parametrize("records", [(), (step(1),)], ids=["nothing", "no validation"])
def test_a_run_that_has_only_begun_is_drawn(history, records, tmp_path):
    plot_history(history(*records)).savefig(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


@pytest.mark.parametrize("rest", [b'{"kind": "st', '{"text": "é'.encode()[:-1], b"\xff"])
def test_a_line_that_a_crash_has_cut_is_passed_over(history, rest):
    assert curves(plot_history(history(step(1), rest=rest)), 0)["train"] == [[1, 5.0]]


def test_bits_per_byte_get_a_panel_where_they_were_measured(history):
    measured = VALIDATION | {"bits_per_byte": 1.5}
    figure = plot_history(history(step(1), VALIDATION, measured))
    assert [axes.get_ylabel() for axes in figure.axes][2] == "bits per byte of held-out text"
    assert curves(figure, 2) == {"validation": [[2, 1.5]]}
    assert len(plot_history(history(step(1), VALIDATION)).axes) == 2


def test_scores_get_a_panel_where_they_were_measured(history):
    words = {"first_name": 3.0, "repeated_name": 1.0, "first_noun": 2.0, "repeated_noun": 0.5}
    figure = plot_history(history(step(1), VALIDATION, VALIDATION | {"scores": words}))
    assert figure.axes[2].get_ylabel() == "loss (nats per word)"
    drawn = {name.replace("_", " "): [[2, value]] for name, value in words.items()}
    assert curves(figure, 2) == drawn


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"bits_per_byte": 1.5}])
def test_each_panel_is_at_least_three_inches_wide_in_a_figure_of_eight(history, more):
    figure = plot_history(history(step(1), VALIDATION | {"scores": {"a": 1.0}} | more))
    figure.draw_without_rendering()
    assert figure.get_figwidth() == 8
    assert min(8 * axes.get_position().width for axes in figure.axes) > 3


@pytest.mark.slow
def test_a_step_that_was_skipped_is_a_gap(history, tmp_path):
    skipped = step(2) | {"loss": None, "loss_average": None}
    figure = plot_history(history(step(1), skipped, step(3)))
    assert math.isnan(curves(figure, 0)["train"][1][1])
    figure.savefig(tmp_path / "curves.png")


@pytest.mark.slow
def test_a_run_of_another_process_is_drawn_while_it_writes(tmp_path):
    path = tmp_path / "history.jsonl"
    lines = [json.dumps(step(number)) for number in range(1, 301)]
    code = (
        "import sys, time\n"
        "for line in sys.stdin:\n"
        "    with open(sys.argv[1], 'a') as file:\n"
        "        file.write(line[:20]); file.flush(); time.sleep(0.001); file.write(line[20:])\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, text=True
    )
    counts = []
    for first in range(0, len(lines), 50):
        writer.stdin.write("".join(line + "\n" for line in lines[first : first + 50]))
        writer.stdin.flush()
        while not path.is_file() or path.read_text().count("\n") <= first:
            assert writer.poll() is None, "it goes on with what is written"
        counts.append(len(curves(plot_history(path), 0)["train"]))
        assert first < counts[-1] <= first + 50, "it was drawn while it grew"
    writer.communicate()
    assert counts == sorted(counts)
    assert len(curves(plot_history(path), 0)["train"]) == 300


def test_a_run_that_never_was_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="start the training first"):
        plot_history(tmp_path / "history.jsonl")


@pytest.mark.slow
def test_the_live_plot_draws_after_a_validation_and_then_updates_itself(history, monkeypatch):
    shown = []

    class Handle:
        def update(self, picture):
            shown.append("update")

    def display(picture, display_id):
        assert picture._repr_png_().startswith(b"\x89PNG")
        shown.append("new")
        return Handle()

    ipython = SimpleNamespace(display=display)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=ipython))
    monkeypatch.setitem(sys.modules, "IPython.display", ipython)
    path = history(step(1), VALIDATION)
    plot = LivePlot(path, seconds=0)
    plot(step(1))
    assert shown == []
    plot(VALIDATION)
    plot(VALIDATION)
    assert shown == ["new", "update"]
    hasty = LivePlot(path, seconds=1000)
    hasty(VALIDATION)
    assert shown == ["new", "update"]
