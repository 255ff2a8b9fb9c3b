"""Checks that a GPU computes what it should: kernels, precisions, resuming."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.speed.loops import our_loop
from benchmarks.speed.measuring import seconds_of
from dimgpt.config import ModelConfig, TrainingConfig
from dimgpt.data.reading.batch import Batch, make_batches
from dimgpt.model.attention import KERNELS, attention, fastest_kernel
from dimgpt.model.experts import Experts, has_grouped_product
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime, choose_runtime
from dimgpt.training.journal import read_history
from dimgpt.training.trainer import Trainer

_TOLERANCES = {torch.float32: 2e-3, torch.bfloat16: 2e-2}
_HALF_ONLY = {"varlen", "flash_attn"}
# Rows, positions, window, and the lengths of the documents of each row if they are kept apart.
_CASES: tuple[tuple[int, int, int | None, tuple[int, ...] | None], ...] = (
    (16, 512, 256, None),
    (3, 771, 129, None),
    (2, 300, None, None),
    (16, 512, 256, (40, 300, 7, 165)),
    (2, 300, None, (299, 1)),
)
_TOY_CASES = ((2, 24, 7, None), (1, 33, None, None), (2, 24, 7, (5, 18, 1)))


class MarkovData:
    """Random rows of a Markov chain, so that a model has something to learn."""

    def __init__(self, model: ModelConfig, config: TrainingConfig) -> None:
        self.model, self.config = model, config
        self.successor = np.random.default_rng(0).permutation(model.vocab_size)
        self.steps_read: list[int] = []

    def batches(self, step: int) -> list[Batch]:
        """Return the micro-batches of a step."""
        self.steps_read.append(step)
        return self._draw((self.config.seed, step), self.config.sequences_per_step)

    def validation_batches(self, num_batches: int) -> list[Batch]:
        """Return the same batches each time."""
        return self._draw((self.config.seed, 0), num_batches * self.config.batch_size)

    def _draw(self, seed: tuple[int, int], num_rows: int) -> list[Batch]:
        generator = np.random.default_rng(seed)
        shape = (num_rows, self.model.context_length + 1)
        rows = generator.integers(self.model.vocab_size, size=shape)
        follows = generator.random(shape) < 0.8
        for position in range(1, shape[1]):
            chosen = self.successor[rows[:, position - 1]]
            rows[:, position] = np.where(follows[:, position], chosen, rows[:, position])
        weights = np.ones(shape, dtype=np.float32)
        return make_batches(rows, weights, batch_size=self.config.batch_size)


def check_kernels(runtime: Runtime, *, is_toy: bool) -> dict[str, Any]:
    """Compare values and gradients of every kernel with the naive attention; time them."""
    cases = _TOY_CASES if is_toy else _CASES
    heads = (4, 2, 16) if is_toy else (16, 4, 64)
    rows: dict[str, Any] = {}
    for dtype in _TOLERANCES:
        chosen = fastest_kernel(runtime.device, dtype)
        rows[f"fastest for {_name(dtype)}"] = chosen
        for batch, length, window, lengths in cases:
            inputs = _random_heads(runtime, batch, length, heads, dtype)
            documents = _documents(lengths, batch, runtime)
            seen = {"window_size": window, "documents": documents}
            expected = _values_and_gradients([x.float() for x in inputs], "naive", seen)
            packed = ", packed" if lengths else ""
            if runtime.device.type == "cuda":  # there FlexAttention is compiled, for each shape
                torch.compiler.reset()
            for kernel in KERNELS:
                name = f"{kernel} {_name(dtype)} {batch}x{length} window {window}{packed}"
                rows[name] = _compare(kernel, inputs, seen, expected, runtime)
    checked = [row for row in rows.values() if isinstance(row, dict) and "is_right" in row]
    return {"all_right": all(row["is_right"] for row in checked), "checked": len(checked), **rows}


def _documents(lengths: tuple[int, ...] | None, batch: int, runtime: Runtime) -> Tensor | None:
    """Return the lengths of the documents of each row, (B, D)."""
    return None if lengths is None else torch.tensor([lengths] * batch, device=runtime.device)


def _compare(
    kernel: str,
    inputs: list[Tensor],
    seen: dict[str, Any],
    expected: list[Tensor],
    runtime: Runtime,
) -> Any:
    dtype = inputs[0].dtype
    if kernel in _HALF_ONLY and (dtype == torch.float32 or runtime.device.type != "cuda"):
        return "not for this device or precision"
    try:
        actual = _values_and_gradients(inputs, kernel, seen)
        errors = [
            float((a.float() - e).norm() / e.norm()) for a, e in zip(actual, expected, strict=True)
        ]

        def run() -> None:
            _values_and_gradients(inputs, kernel, seen)

        seconds = min(seconds_of(run, runtime.device) for _ in range(3))
    except Exception as error:  # a missing kernel must not hide the others
        return f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
    return {
        "is_right": max(errors) < _TOLERANCES[dtype],
        "error_of_values": round(errors[0], 6),
        "error_of_gradients": round(max(errors[1:]), 6),
        "forward_backward_ms": round(1e3 * seconds, 3),
    }


def check_experts(runtime: Runtime, *, is_toy: bool) -> dict[str, Any]:
    """Compare the grouped product of experts in half precision with float32, one by one."""
    width = 16 if is_toy else 512
    config = ModelConfig(
        vocab_size=64,
        embedding_dim=width,
        num_heads=2,
        num_kv_heads=1,
        ffn_dim=2 * width,
        num_experts=8,
        experts_per_token=2,
    )
    torch.manual_seed(0)
    experts = Experts(config).to(runtime.device)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=width**-0.5)
    x = torch.randn(4, 16 if is_toy else 512, width, device=runtime.device)
    with torch.no_grad():
        expected, _ = experts(x)
        with runtime.autocast():
            actual, _ = experts(x)
            seconds = min(seconds_of(lambda: experts(x), runtime.device) for _ in range(3))
    error = float((actual.float() - expected).norm() / expected.norm())
    with runtime.autocast():
        is_grouped = has_grouped_product(x, experts.up.weight, torch.bfloat16)
    return {
        "is_right": error < _TOLERANCES[torch.bfloat16],
        "error_of_values": round(error, 6),
        "is_grouped": is_grouped,
        "forward_ms": round(1e3 * seconds, 3),
    }


def _random_heads(
    runtime: Runtime, batch: int, length: int, heads: tuple[int, int, int], dtype: torch.dtype
) -> list[Tensor]:
    generator = torch.Generator(runtime.device).manual_seed(length)
    num_heads, num_kv_heads, dim = heads
    return [
        torch.randn(batch, length, count, dim, generator=generator, device=runtime.device).to(dtype)
        for count in (num_heads, num_kv_heads, num_kv_heads)
    ]


def _values_and_gradients(inputs: list[Tensor], kernel: str, seen: dict[str, Any]) -> list[Tensor]:
    q, k, v = (x.detach().requires_grad_() for x in inputs)
    mixed = attention(q, k, v, kernel=kernel, **seen)
    direction = torch.linspace(-1, 1, mixed.shape[1], device=mixed.device)[:, None, None]
    return [mixed.detach(), *torch.autograd.grad((mixed.float() * direction).sum(), (q, k, v))]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def compare_precisions(model: ModelConfig, runtime: Runtime, *, steps: int) -> dict[str, Any]:
    """Train the same small model in bf16 and fp32; another seed in fp32 shows the noise."""
    config = TrainingConfig(
        batch_size=16,
        accumulation_steps=1,
        learning_rate=2e-3,
        warmup_steps=0,
        use_compile=False,
        loss_chunks=1,
    )
    curves = {}
    for name, precision, seed in (("fp32", "fp32", 0), ("bf16", "bf16", 0), ("noise", "fp32", 1)):
        chosen = choose_runtime(precision, str(runtime.device))
        curves[name] = _curve(model, dataclasses.replace(config, seed=seed), chosen, steps=steps)
    ends = {name: float(np.mean(curve[-20:])) for name, curve in curves.items()}
    return {
        "steps": steps,
        "first_loss": round(curves["fp32"][0], 4),
        "last_losses": {name: round(value, 4) for name, value in ends.items()},
        "bf16_minus_fp32": round(ends["bf16"] - ends["fp32"], 5),
        "other_seed_minus_fp32": round(ends["noise"] - ends["fp32"], 5),
        "largest_gap_bf16": round(_largest_gap(curves["bf16"], curves["fp32"]), 5),
        "largest_gap_other_seed": round(_largest_gap(curves["noise"], curves["fp32"]), 5),
    }


def _curve(
    model: ModelConfig, config: TrainingConfig, runtime: Runtime, *, steps: int
) -> list[float]:
    data, losses = MarkovData(model, config), []
    loop = our_loop(model, config, runtime)
    for step in range(1, steps + 1):
        batches = data.batches(step)
        with torch.no_grad(), runtime.autocast():
            loss = loop.loss(batches[0].to(runtime.device)) / batches[0].inputs.numel()
        losses.append(float(loss))
        loop.step(batches)
    return losses


def _largest_gap(first: list[float], second: list[float], width: int = 10) -> float:
    """Return how far two curves are apart at most, smoothed over `width` steps."""
    window = np.ones(width) / width
    a, b = (np.convolve(curve, window, mode="valid") for curve in (first, second))
    return float(np.abs(a - b).max()) if len(a) else 0.0


def check_resume(model: ModelConfig, runtime: Runtime) -> dict[str, Any]:
    """Take 6 steps at once, and 3 + 3 with a checkpoint between; compare what came out."""
    config = TrainingConfig(
        batch_size=4,
        accumulation_steps=2,
        learning_rate=1e-3,
        min_learning_rate=1e-4,
        warmup_steps=2,
        decay_steps=10,
        max_steps=6,
        validation_interval=3,
        validation_batches=1,
        checkpoint_interval=3,
        use_compile=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        whole = _train(model, config, runtime, Path(folder) / "whole")
        _train(model, dataclasses.replace(config, max_steps=3), runtime, Path(folder) / "parts")
        resumed = _train(model, config, runtime, Path(folder) / "parts")
    same = [torch.equal(a, b) for a, b in zip(whole["weights"], resumed["weights"], strict=True)]
    gaps = [abs(a - b) for a, b in zip(whole["losses"], resumed["losses"], strict=True)]
    return {
        "same_batches": resumed["steps_read"] == whole["steps_read"][3:],
        "same_schedule": whole["rates"] == resumed["rates"],
        "largest_gap_of_losses": max(gaps),
        "bitwise_equal_weights": all(same),
    }


def _train(
    model: ModelConfig, config: TrainingConfig, runtime: Runtime, folder: Path
) -> dict[str, Any]:
    torch.manual_seed(0)
    data = MarkovData(model, config)
    trainer = Trainer(Transformer(model), data, config, run_dir=folder, runtime=runtime)
    trainer.fit()
    records = [r for r in read_history(folder / "history.jsonl") if r["kind"] == "step"]
    return {
        "steps_read": data.steps_read,
        "losses": [record["loss"] for record in records],
        "rates": [record["learning_rate"] for record in records],
        "weights": [parameter.detach().clone() for parameter in trainer.model.parameters()],
    }
