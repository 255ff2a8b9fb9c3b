"""A preset: all settings of a run, from raw text to chat."""

from dataclasses import dataclass

from dimgpt.config import DataConfig, ModelConfig, SamplingConfig, TrainingConfig


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
    sampling: SamplingConfig
    prompt: str
    """Text that is completed now and then while the model trains."""
    questions: tuple[str, ...]
    """What the chat is asked first."""
    system_prompt: str | None = None
    """What the chat begins with."""
    languages: tuple[str, ...] = ()
    """ISO 639 codes of what its texts are written in, for the model's card."""
