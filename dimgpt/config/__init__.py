"""Every setting of the project, as frozen dataclasses that check themselves.

A setting is written once, in a notebook cell, on the command line or in `presets/`, and passed on
as a value: no other module reads the environment or keeps state. The defaults are those of the
published DimensionGPT-0.2B. Nothing here computes or opens anything; `settings.py` turns these
classes into JSON and back.
"""

from dataclasses import dataclass, field

from dimgpt.config.data import (
    ConversationSourceConfig,
    DataConfig,
    PreferenceSourceConfig,
    QualityConfig,
    SourceConfig,
    TokenizerConfig,
)
from dimgpt.config.model import (
    DROPOUT_FIELDS,
    AttentionSpan,
    DropoutPlace,
    ExportConfig,
    ExportDtype,
    ExportTarget,
    ModelConfig,
    SamplingConfig,
)
from dimgpt.config.training import LoraConfig, Packing, Precision, Tracker, TrainingConfig

__all__ = [
    "DROPOUT_FIELDS",
    "ConversationSourceConfig",
    "DataConfig",
    "AttentionSpan",
    "DropoutPlace",
    "ExportConfig",
    "ExportDtype",
    "ExportTarget",
    "LoraConfig",
    "ModelConfig",
    "Packing",
    "Precision",
    "PreferenceSourceConfig",
    "Preset",
    "QualityConfig",
    "SamplingConfig",
    "SourceConfig",
    "TokenizerConfig",
    "Tracker",
    "TrainingConfig",
]

# Small steps near the fine-tuned model: rates of 5e-8 to 5e-7 are usual for small models.
_PREFERENCES = TrainingConfig(
    batch_size=8,
    accumulation_steps=4,
    learning_rate=5e-7,
    min_learning_rate=0.0,
    schedule="linear",
    warmup_steps=100,
    decay_steps=None,
    max_steps=1_000,
    adam_eps=1e-8,
    weight_decay=0.0,
    validation_interval=100,
    validation_batches=16,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """All settings of a run, from raw text to chat."""

    name: str
    """Also the name of its folders in `data/` and `models/`."""
    description: str
    model: ModelConfig
    data: DataConfig
    pretraining: TrainingConfig
    finetuning: TrainingConfig
    preferences: TrainingConfig = _PREFERENCES
    """A sequence is a pair of answers; `use_compile`, `loss_chunks` and the search for the fastest
    micro-batch do not apply."""
    sampling: SamplingConfig
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Adapters of the fine-tuning."""
    prompt: str
    """Text that the model completes every `sample_interval` steps of training."""
    questions: tuple[str, ...] = ()
    """First questions to the chat model."""
    system_prompt: str | None = None
    """System prompt of the chat."""
    languages: tuple[str, ...] = ()
    """ISO 639 codes of the languages of its texts, for the model's card."""
