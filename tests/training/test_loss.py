"""The loss of a batch."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from dimgpt.config import ModelConfig, TrainingConfig
from dimgpt.data.reading.batch import make_batches
from dimgpt.model import feed_forward
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime, choose_runtime
from dimgpt.training import loss as loss_module
from dimgpt.training.loss import choose_loss_chunks, compiled_loss, weighted_cross_entropy

CPU = choose_runtime("fp32", "cpu")
MODEL = ModelConfig(
    vocab_size=300,
    context_length=20,
    window_size=6,
    embedding_dim=16,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    ffn_dim=24,
)


def make_batch(num_rows=3):
    generator = np.random.default_rng(num_rows)
    rows = generator.integers(300, size=(num_rows, 21))
    weights = generator.random((num_rows, 21)).astype(np.float32)
    return make_batches(rows, weights, batch_size=num_rows)[0]


def make_model(**options):
    torch.manual_seed(0)
    return Transformer(MODEL, **options)


def loss_function(model, **settings):
    settings = {"batch_size": 3, "loss_chunks": 1, **settings}
    return compiled_loss(model, TrainingConfig(**settings), CPU)


def values_and_gradients(model, **settings):
    sums = loss_function(model, **settings)(make_batch())
    assert not sums.correct.requires_grad
    return [*sums, *torch.autograd.grad(sums.loss, list(model.parameters()))]


def test_it_is_the_weighted_sum_of_log_probabilities():
    logits = torch.randn(2, 3, 5)
    targets = torch.tensor([[0, 1, 2], [3, 4, 0]])
    weights = torch.tensor([[1.0, 0.1, 0.0], [1.0, 1.0, 0.5]])
    sums = weighted_cross_entropy(logits, targets, weights)
    chosen = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(sums.loss, -(chosen * weights).sum())
    right = (logits.argmax(-1) == targets) * weights
    torch.testing.assert_close(sums.correct, right.sum())


def test_a_token_of_weight_0_has_no_gradient():
    logits = torch.randn(1, 2, 5, requires_grad=True)
    weights = torch.tensor([[1.0, 0.0]])
    weighted_cross_entropy(logits, torch.tensor([[1, 2]]), weights).loss.backward()
    assert logits.grad[0, 0].abs().sum() > 0
    assert logits.grad[0, 1].abs().sum() == 0


@pytest.mark.parametrize("num_chunks", [2, 7, 70])
def test_chunks_change_neither_the_sums_nor_the_gradients(num_chunks):
    model = make_model()
    expected = values_and_gradients(model)
    actual = values_and_gradients(model, loss_chunks=num_chunks)
    for first, second in zip(expected, actual, strict=True):
        torch.testing.assert_close(second, first, atol=1e-6, rtol=1e-6)


def test_chunks_of_an_output_layer_of_its_own_with_a_bias_are_the_same_too():
    torch.manual_seed(0)
    model = Transformer(dataclasses.replace(MODEL, tie_embeddings=False, use_biases=True))
    torch.nn.init.normal_(model.output_bias)
    expected = values_and_gradients(model)
    actual = values_and_gradients(model, loss_chunks=4)
    for first, second in zip(expected, actual, strict=True):
        torch.testing.assert_close(second, first, atol=5e-6, rtol=1e-5)


def test_chunks_of_capped_logits_are_the_same_too():
    torch.manual_seed(0)
    model = Transformer(dataclasses.replace(MODEL, logit_cap=0.5, init_std=1.0))
    expected = values_and_gradients(model)
    actual = values_and_gradients(model, loss_chunks=4)
    for first, second in zip(expected, actual, strict=True):
        torch.testing.assert_close(second, first, atol=5e-6, rtol=1e-5)


def test_chunks_follow_the_weight_that_the_loss_is_given():
    model, batch = make_model(), make_batch()
    gradients = []
    for chunks in (1, 4):
        loss = loss_function(model, loss_chunks=chunks)(batch).loss
        gradients.append(torch.autograd.grad(loss / 7 * 3, list(model.parameters())))
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(second, first, atol=1e-6, rtol=1e-6)


def test_chunks_without_gradients_give_the_sums():
    model, batch = make_model(), make_batch()
    with torch.no_grad():
        sums = [loss_function(model, loss_chunks=chunks)(batch) for chunks in (1, 4)]
    torch.testing.assert_close(sums[0], sums[1])


def test_chunks_in_bf16_stay_near_the_plain_loss_in_bf16():
    model, runtime = make_model(), Runtime(device=torch.device("cpu"), precision="bf16")
    results = []
    for chunks in (1, 4):
        with runtime.autocast():
            sums = loss_function(model, loss_chunks=chunks)(make_batch())
        results.append([sums.loss, *torch.autograd.grad(sums.loss, list(model.parameters()))])
    for first, second in zip(*results, strict=True):
        assert (first - second).norm() < 2e-2 * first.norm()


def saved_bytes(model, **settings):
    """Return the largest tensor, and all bytes, that forward keeps for backward."""
    sizes = []

    def keep(x):
        sizes.append(x.nbytes)
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        loss_function(model, **settings)(make_batch())
    return max(sizes), sum(sizes)


def test_chunks_keep_no_logits_for_the_backward_pass():
    model = make_model()
    logits = 3 * 20 * 300 * 4
    assert saved_bytes(model)[0] == logits
    largest, total = saved_bytes(model, loss_chunks=6)
    assert largest < logits
    assert total < saved_bytes(model)[1] - logits


def test_a_large_memory_takes_all_logits_at_once_and_a_small_one_chunks():
    size = {"num_tokens": 64 * 512, "vocab_size": 32_000}
    assert choose_loss_chunks(**size, free_bytes=130 * 2**30) == 1
    num_chunks = choose_loss_chunks(**size, free_bytes=20 * 2**30)
    assert 2 <= num_chunks <= 8
    assert choose_loss_chunks(**size, free_bytes=0) == 32


def test_the_setting_overrides_the_choice_by_a_gpus_memory(monkeypatch):
    seen = []
    plain = loss_module.chunked_cross_entropy

    def watch(*args, num_chunks):
        seen.append(num_chunks)
        return plain(*args, num_chunks=num_chunks)

    monkeypatch.setattr(loss_module, "chunked_cross_entropy", watch)
    monkeypatch.setattr(loss_module, "available_memory", lambda runtime: 16 * 3 * 20 * 300)
    model, batch = make_model(), make_batch()
    for chunks in (None, 5, 1):
        loss_function(model, loss_chunks=chunks)(batch)
    assert seen == [5]
    card = Runtime(device=torch.device("cuda"), precision="fp32")
    monkeypatch.setattr(loss_module, "activate_newest_flash_attention", lambda device: None)
    settings = TrainingConfig(batch_size=3, use_compile=False)
    compiled_loss(model, settings, card)(batch)
    assert seen == [5, 8]


@pytest.fixture
def compiler(monkeypatch):
    """Compile without generating code, count the graphs, and refuse a break in one."""
    torch._dynamo.reset()
    from torch._dynamo.testing import CompileCounterWithBackend  # it takes a second

    counter = CompileCounterWithBackend("aot_eager")
    compile_ = torch.compile
    options = {"backend": counter, "fullgraph": True}
    monkeypatch.setattr(torch, "compile", lambda f, **o: compile_(f, **o, **options))
    return counter


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "chunks"), [("matmul", 1), ("sdpa", 3)])
def test_model_and_loss_compile_into_one_graph_with_the_same_values(compiler, kernel, chunks):
    model = make_model(attention_kernel=kernel)
    expected = values_and_gradients(model)
    actual = values_and_gradients(model, use_compile=True, loss_chunks=chunks)
    assert compiler.frame_count == 1
    for first, second in zip(expected, actual, strict=True):
        torch.testing.assert_close(second, first, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_zeros_beside_the_weights_stay_inside_the_graph(compiler, monkeypatch):
    model = make_model()
    expected = values_and_gradients(model)
    monkeypatch.setattr(feed_forward, "width_multiple", lambda *_, **__: 64)
    actual = values_and_gradients(model, use_compile=True)
    assert compiler.frame_count == 1
    for first, second in zip(expected, actual, strict=True):
        torch.testing.assert_close(second, first, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_one_graph_serves_all_micro_batches_and_one_more_validation(compiler):
    model = make_model()
    compute = loss_function(model, use_compile=True)
    for _ in range(2):
        model.train()
        for _ in range(3):
            compute(make_batch()).loss.backward()
        model.eval()
        with torch.no_grad():
            compute(make_batch())
            compute(make_batch())
    assert compiler.frame_count == 2


class Forbid(torch.utils._python_dispatch.TorchDispatchMode):
    """Fails where the host would read a number of the device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten._local_scalar_dense.default, "a number is read"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("chunks", [1, 3])
def test_forward_and_backward_read_no_number_of_the_device(chunks):
    model = make_model()
    compute = loss_function(model, loss_chunks=chunks)
    with Forbid():
        for _ in range(2):
            compute(make_batch()).loss.backward()
    with pytest.raises(AssertionError, match="a number is read"), Forbid():
        compute(make_batch()).loss.item()
