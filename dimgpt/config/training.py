"""Settings of a training run: batch, optimizer, schedule, and intervals."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from dimgpt.config.rules import (
    NotNegativeFloat,
    NotNegativeInt,
    PositiveFloat,
    PositiveInt,
    Ratio,
    check_fields,
)

Precision = Literal["auto", "fp32", "tf32", "bf16", "fp16"]
Tracker = Literal["tensorboard", "wandb", "trackio"]
Packing = Literal["concatenate", "best_fit", "pad"]
LoraTarget = Literal["query", "key", "value", "output", "gate", "up", "down"]
_COOLDOWN_SHARE = 0.65


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """One training run: batch, optimizer, schedule, and intervals."""

    batch_size: PositiveInt = 16
    """Sequences per forward pass."""
    accumulation_steps: PositiveInt = 64
    """Forward passes per optimizer step."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` trains the matrices inside the blocks with Muon, and the rest with AdamW."""
    learning_rate: PositiveFloat = 6e-4
    """Peak, reached at the end of the warm-up."""
    min_learning_rate: NotNegativeFloat = 6e-5
    """Final learning rate of the schedule."""
    schedule: Literal["cosine", "linear", "wsd"] = "cosine"
    """`cosine` and `linear` decay right after the warm-up; `wsd` decays at the end of the run."""
    warmup_steps: NotNegativeInt = 2_000
    """Steps of the linear warm-up from 0."""
    decay_steps: PositiveInt | None = 100_000
    """Steps of the decay: after the warm-up, with `wsd` before `max_steps`. `None` decays until
    `max_steps`, with `wsd` during the last 65 % of the run."""
    cooldown: Literal["linear", "sqrt"] = "sqrt"
    """Shape of the decay with `wsd`: linear, or 1 minus a square root."""
    max_steps: PositiveInt = 100_000
    """Step at which the run ends."""
    adam_betas: tuple[float, float] = (0.9, 0.95)
    """Decay of AdamW's two moments, in 0..1."""
    adam_eps: PositiveFloat = 1e-5
    """Added to AdamW's denominator."""
    weight_decay: NotNegativeFloat = 0.1
    """Decoupled decay of AdamW, on matrices only unless `decay_vectors` is set."""
    decay_vectors: bool = False
    """Decay norms and biases, too, as lilLM and toyGPT did."""
    muon_learning_rate: PositiveFloat = 0.02
    """Peak for Muon's matrices; follows the schedule of `learning_rate`."""
    muon_momentum: Ratio = 0.95
    """Decay of Muon's mean gradient, in 0..1."""
    muon_warmup_steps: NotNegativeInt = 300
    """Steps in which Muon's momentum rises from 0.85."""
    muon_weight_decay: NotNegativeFloat = 0.0
    """Decoupled decay of Muon's matrices."""
    muon_cautious_decay: bool = False
    """Decay only weights that the update also shrinks, and lower the decay linearly to 0."""
    dropout: Ratio | None = None
    """The model's `dropout` in this run, in 0..1; `None` keeps the model's own."""
    attention_dropout: Ratio | None = None
    """The model's `attention_dropout` in this run, likewise."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients with a larger norm are scaled down to this norm."""
    skip_spikes: bool = False
    """Skip updates with a loss or gradient norm 6 deviations above the mean of the last 128."""
    validation_interval: PositiveInt = 50
    """Steps between validations."""
    validation_batches: PositiveInt = 64
    """Batches of a validation, the same ones each time."""
    patience: PositiveInt | None = None
    """Stop the run after this many validations without a lower loss; `None` never stops it."""
    checkpoint_interval: PositiveInt = 500
    """Steps between checkpoints."""
    keep_checkpoints: PositiveInt = 2
    """Number of newest checkpoints to keep."""
    keep_best: PositiveInt = 1
    """Number of checkpoints with the lowest validation losses to keep, without the optimizer."""
    sample_interval: PositiveInt = 1_000
    """Steps between samples of the fixed prompt."""
    metrics_decay: Ratio = 0.9
    """Decay of the moving averages that are shown, in 0..1."""
    precision: Precision = "auto"
    """`auto`: bf16 if the device supports it, fp16 with loss scaling on older GPUs.

    `tf32`: float32 whose products are rounded to 10 bits, on GPUs since 2020.
    """
    use_compile: bool | None = None
    """`torch.compile` the model; `None` does so on CUDA only."""
    sharding: Literal["none", "full"] = "none"
    """With several processes, `none` gives each the full model, `full` a part of every tensor."""
    loss_chunks: PositiveInt | None = None
    """Parts in which the logits are computed, to save memory; `None` chooses by the device."""
    use_micro_batch_search: bool | None = None
    """Measure which micro-batch size is fastest; `None` does so in long runs on CUDA."""
    router_balance_loss: NotNegativeFloat = 0.01
    """Factor of the loss that keeps experts equally busy; for models with experts only."""
    router_z_loss: NotNegativeFloat = 0.001
    """Factor of the loss that keeps router logits small; for models with experts only."""
    dpo_beta: PositiveFloat = 0.1
    """Strength with which preference training keeps the model near its initial weights."""
    trackers: tuple[Tracker, ...] = ()
    """Services that show the curves, besides `history.jsonl`; each needs its package."""
    seed: NotNegativeInt = 0
    """Every batch is a pure function of (seed, step)."""

    def __post_init__(self) -> None:
        check_fields(self)
        has_decay = self.schedule == "wsd" and self.decay_steps is not None
        if has_decay and self.warmup_steps + self.num_decay_steps > self.max_steps:
            raise ValueError(
                f"decay_steps is {self.decay_steps}: with the schedule wsd, warmup_steps "
                f"({self.warmup_steps}) and decay_steps must fit into max_steps "
                f"({self.max_steps}); lower it, or set it to None"
            )
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate is {self.min_learning_rate}: it must not exceed learning_rate "
                f"({self.learning_rate}); lower it"
            )
        if not all(0 <= beta < 1 for beta in self.adam_betas):
            raise ValueError(f"adam_betas is {self.adam_betas}: both must lie in [0, 1)")
        if self.optimizer != "muon":
            for field in dataclasses.fields(self):
                value = getattr(self, field.name)
                if field.name.startswith("muon_") and value != field.default:
                    raise ValueError(
                        f"{field.name} is {value} and optimizer {self.optimizer!r}: set optimizer "
                        "to 'muon', or leave the setting out"
                    )

    @property
    def num_decay_steps(self) -> int:
        """Steps of the decay, at least 1."""
        if self.decay_steps is not None:
            return self.decay_steps
        longest = self.max_steps - self.warmup_steps
        share = round(_COOLDOWN_SHARE * self.max_steps)
        return max(1, min(share, longest) if self.schedule == "wsd" else longest)

    @property
    def num_idle_steps(self) -> int:
        """Steps that change nothing, since their learning rate falls to 0 before the last step."""
        first = self.warmup_steps + self.num_decay_steps
        is_early = first < self.max_steps and self.schedule != "wsd"
        return self.max_steps - first + 1 if is_early and self.min_learning_rate == 0 else 0

    @property
    def sequences_per_step(self) -> int:
        """Sequences per optimizer step."""
        return self.batch_size * self.accumulation_steps


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    """Low-rank adapters, which a fine-tuning trains in place of the weights."""

    rank: NotNegativeInt = 0
    """Rank of the adapters; 0 trains all weights. Adapters train with AdamW at `learning_rate`,
    whichever `optimizer` is set."""
    alpha: PositiveFloat = 16.0
    """The output of an adapter is multiplied by alpha / rank."""
    targets: tuple[LoraTarget, ...] = ("query", "key", "value", "output", "gate", "up", "down")
    """Layers of each block that get an adapter; stacks of experts do not."""
    dropout: Ratio = 0.0
    """Dropout of the adapters' inputs, in 0..1."""

    def __post_init__(self) -> None:
        check_fields(self)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not self.rank and value != field.default:
                raise ValueError(
                    f"lora.{field.name} is {value} and lora.rank 0: set lora.rank, such as 8, or "
                    "leave the setting out"
                )
