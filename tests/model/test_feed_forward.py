"""Zeros beside the weights change the speed and nothing else."""

import dataclasses

import pytest
import torch

from dimgpt.config import ModelConfig
from dimgpt.model import feed_forward
from dimgpt.model.feed_forward import SwiGLU, width_multiple

CONFIG = dataclasses.replace(ModelConfig(), embedding_dim=32, ffn_dim=85)


@pytest.fixture
def padded(monkeypatch):
    """Return a context in which the CPU pads as a GPU would."""

    def pad(multiple):
        monkeypatch.setattr(feed_forward, "width_multiple", lambda *_, **__: multiple)

    return pad


def make_layer(*, use_biases=False):
    torch.manual_seed(0)
    return SwiGLU(dataclasses.replace(CONFIG, use_biases=use_biases)).double()


@pytest.mark.parametrize("use_biases", [False, True])
def test_padding_changes_neither_values_nor_gradients(padded, use_biases):
    layer = make_layer(use_biases=use_biases)
    x = torch.randn(3, 5, 32, dtype=torch.double, requires_grad=True)
    inputs = [x, *layer.parameters()]
    plain = layer(x)
    expected = [plain, *torch.autograd.grad(plain.square().sum(), inputs)]
    padded(64)
    y = layer(x)
    actual = [y, *torch.autograd.grad(y.square().sum(), inputs)]
    for first, second in zip(expected, actual, strict=True):
        assert first.shape == second.shape
        torch.testing.assert_close(first, second, atol=1e-12, rtol=1e-12)


@pytest.mark.slow
def test_50_steps_of_training_are_the_same_with_padding(padded):
    weights = []
    for multiple in (1, 64):
        padded(multiple)
        layer = make_layer()
        optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2, weight_decay=0.1)
        for step in range(50):
            x = torch.randn(8, 32, generator=torch.Generator().manual_seed(step)).double()
            (layer(x) - x.flip(-1)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        weights.append(layer.state_dict())
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], atol=1e-9, rtol=1e-9)


def test_the_products_are_as_wide_as_the_multiple_says(padded):
    widths = []
    layer = make_layer()

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function is torch.nn.functional.linear:
                widths.append(result.shape[-1])
            return result

    padded(64)
    with Watch():
        layer(torch.randn(2, 32).double())
    assert widths == [128, 128, 32]
    assert layer.gate.weight.shape == (85, 32)


def test_only_large_batches_on_a_gpu_are_padded():
    assert width_multiple("cuda", num_positions=16 * 512) == 64
    assert width_multiple("cuda", num_positions=1) == 1
    assert width_multiple("cpu", num_positions=16 * 512) == 1
