"""Estimates what a machine can train in a given time, from a measured speed and a loss curve.

`benchmarks/sizing.py` fits the curve to small runs on French text. It also reports the error of the
curve on runs that were not fitted.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dimgpt.config import TrainingConfig
from dimgpt.display.tables import Table
from dimgpt.info import PEAK_SHARE, memory_size, num_tokens, training_memory
from dimgpt.model.flops import num_parameters, training_flops_per_token
from dimgpt.model.transformer import Transformer
from dimgpt.presets import PRESETS, Preset
from dimgpt.runtime import Runtime, available_memory, peak_flops
from dimgpt.settings import override
from dimgpt.training.micro_batch_search import divide, fastest, measure_sizes

CANDIDATES = tuple(PRESETS[name] for name in ("french-5m-modern", "dimensiongpt-0.2b-modern"))
"""Presets of real French, from the smallest; the curve holds for such text only."""
_HOURS = {"m": 1 / 60, "h": 1.0, "d": 24.0}
_TRAINING_SHARE = 0.9  # the optimizer, validations and checkpoints take the rest of the time
_MEASURED_SECONDS = 10.0  # slower micro-batches are not measured
_FEWEST_STEPS = 200
_BYTES_PER_TOKEN = 4
# Number of repeats at which a text has given 1 - 1/e of the benefit of endless repeats:
# Muennighoff et al. 2023, https://arxiv.org/abs/2305.16264.
_USEFUL_REPEATS = 15.4


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Bits per byte of held-out text against parameters N and tokens D: E + A / N^a + B / D^b.

    Hoffmann et al. 2022, https://arxiv.org/abs/2203.15556. N and D count in millions.
    """

    floor: float
    """E, the limit for an infinite model and infinite text."""
    model_factor: float
    model_power: float
    text_factor: float
    text_power: float
    adamw_share: float
    """Tokens with Muon that are worth one token with AdamW, in 0..1."""

    def bits_per_byte(self, parameters: float, tokens: float, *, optimizer: str) -> float:
        """Return the loss at the end of a complete schedule."""
        text = tokens / 1e6 * (self.adamw_share if optimizer == "adamw" else 1.0)
        by_model = self.model_factor * (parameters / 1e6) ** -self.model_power
        return self.floor + by_model + self.text_factor * text**-self.text_power


# Fitted by `benchmarks/sizing.py report`; see benchmarks/LOG.md, 2026-11-27.
CURVE = Curve(
    floor=0.6,
    model_factor=0.8888,
    model_power=0.14,
    text_factor=0.3861,
    text_power=0.54,
    adamw_share=0.34,
)
RELATIVE_ERROR = 0.06
"""A little above the largest error on sizes that were not fitted, 5.3 %."""
MOST_PARAMETERS, MOST_TOKENS = 3.2e6, 3.3e6
"""Maxima of the runs that the curve was fitted to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A run of a preset that fills a given time."""

    preset: Preset
    """The preset; its pretraining has the steps and the batch of the run."""
    text_tokens: float
    """Tokens in one pass over its text."""
    tokens_per_second: float
    is_measured: bool
    """If false, the speed is scaled from a smaller preset by the FLOPs per token."""
    obstacle: str = ""
    """Why the preset cannot be trained; empty if it can."""

    @property
    def useful_tokens(self) -> float:
        """Tokens of new text that would teach as much; each repeat of a text teaches less."""
        text, tokens = self.text_tokens, num_tokens(self.preset)
        repeats = max(tokens / text - 1, 0.0)
        worth = _USEFUL_REPEATS * (1 - math.exp(-repeats / _USEFUL_REPEATS))
        return min(tokens, text) + worth * text

    @property
    def bits_per_byte(self) -> float:
        """The expected loss; infinite if there is an obstacle."""
        if self.obstacle:
            return math.inf
        parameters = num_parameters(self.preset.model)
        optimizer = self.preset.pretraining.optimizer
        return CURVE.bits_per_byte(parameters, self.useful_tokens, optimizer=optimizer)

    @property
    def command(self) -> str:
        """The command that starts the run."""
        config = self.preset.pretraining
        names = ["max_steps", "warmup_steps", "batch_size", "accumulation_steps"]
        names += ["decay_steps"] * (config.decay_steps is not None)
        names += ["muon_warmup_steps"] * (config.optimizer == "muon")
        flags = (f"--training.{n.replace('_', '-')} {getattr(config, n)}" for n in names)
        return f"python -m dimgpt train --preset {self.preset.name} {' '.join(flags)}"

    def row(self) -> dict[str, str]:
        """Return the row of a table."""
        parameters, tokens = num_parameters(self.preset.model), num_tokens(self.preset)
        config, bits = self.preset.pretraining, self.bits_per_byte
        is_guess = parameters > MOST_PARAMETERS or tokens > MOST_TOKENS
        hours = tokens / self.tokens_per_second / _TRAINING_SHARE / 3600
        can_run = not self.obstacle
        sure = f"± {RELATIVE_ERROR * bits:.2f}" + ", a guess: beyond the fitted range" * is_guess
        return {
            "preset": self.preset.name,
            "parameters": f"{parameters:,}",
            "tokens/s": f"{self.tokens_per_second:,.0f}" + " (scaled)" * (not self.is_measured),
            "tokens": f"{tokens / 1e6:,.1f} M" * can_run,
            "passes over its text": f"{tokens / self.text_tokens:.2g}" * can_run,
            "batch": f"{config.batch_size} × {config.accumulation_steps}",
            "hours": f"{hours:,.1f}" * can_run,
            "bits per byte": self.obstacle or f"{bits:.2f} {sure}",
        }


def propose(budget: str, runtime: Runtime, presets: Sequence[Preset] = CANDIDATES) -> Table:
    """Return a table with a run of each preset that fits the budget, and the best one.

    The global batch is the preset's; the fastest division into micro-batches is measured.

    Args:
        budget: Minutes, hours or days: `90m`, `24h`, `2d`.
        runtime: Device for the measurement, which takes seconds, and minutes on a GPU.
        presets: From the smallest; the speed of those that are too slow to measure is scaled.

    Raises:
        ValueError: The budget has another form.
    """
    plans = plan(parse_hours(budget), runtime, presets)
    best = min(plans, key=lambda plan: plan.bits_per_byte)
    advice = "no preset can be trained" if best.obstacle else f"the best is `{best.command}`"
    rows = ({"": "→" * (one is best and not best.obstacle)} | one.row() for one in plans)
    return Table.of(rows, title=f"In {budget} on this machine: {advice}")


def parse_hours(budget: str) -> float:
    """Return the hours of a time such as `90m`, `24h` or `2d`.

    Raises:
        ValueError: The budget has another form, or is 0.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", budget)
    if found is None or not (hours := float(found[1]) * _HOURS[found[2]]):
        raise ValueError(f"budget is {budget!r}: give minutes, hours or days, as 90m, 24h or 2d")
    return hours


def plan(hours: float, runtime: Runtime, presets: Sequence[Preset]) -> list[Plan]:
    """Return a run of each preset with a duration of `hours`; see `propose`."""
    plans: list[Plan] = []
    memory, reached = available_memory(runtime), PEAK_SHARE * peak_flops(runtime)
    for preset in presets:
        config, model = preset.pretraining, preset.model
        flops, needed = training_flops_per_token(model), training_memory(model)
        seconds = config.batch_size * model.context_length * flops / reached
        tried, obstacle = [], ""
        if needed > memory:
            obstacle = f"needs about {memory_size(needed)} of memory"
        elif not plans or seconds < _MEASURED_SECONDS:
            tried = measure_sizes(Transformer(model), config, runtime)
        if tried:
            reached = flops * max(one.tokens_per_second for one in tried)
            config = divide(config, fastest(tried))
        speed = reached / flops
        tokens_per_step = config.sequences_per_step * model.context_length
        steps = int(3600 * hours * _TRAINING_SHARE * speed / tokens_per_step)
        if steps < _FEWEST_STEPS and not obstacle:
            obstacle = f"{steps:,} of at least {_FEWEST_STEPS} steps of {tokens_per_step:,} tokens"
        plans.append(
            Plan(
                preset=override(preset, pretraining=_with_steps(config, max(steps, 1))),
                text_tokens=_text_tokens(preset),
                tokens_per_second=speed,
                is_measured=bool(tried),
                obstacle=obstacle,
            )
        )
    return plans


def _with_steps(config: TrainingConfig, steps: int) -> TrainingConfig:
    """Return a run of another length, with its schedule scaled in proportion."""
    changes = {"max_steps": steps}
    for name in ("warmup_steps", "decay_steps", "muon_warmup_steps"):
        old = getattr(config, name)
        if old is not None and (not name.startswith("muon") or config.optimizer == "muon"):
            changes[name] = max(1, old * steps // config.max_steps)
    return override(config, **changes)


def _text_tokens(preset: Preset) -> float:
    """Return the tokens of a preset's text; if its size is unknown, those of its own run."""
    sources = preset.data.sources
    sizes = [min(s.expected_bytes or 0, s.max_bytes or math.inf) for s in sources]
    return sum(sizes) / _BYTES_PER_TOKEN if all(sizes) else num_tokens(preset)
