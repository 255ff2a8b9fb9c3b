"""Every setting of the project, as frozen dataclasses that check themselves.

A setting is written once, in a notebook cell, on the command line or in `presets/`, and travels
down as a value: no other module reads the environment or keeps state. The defaults are those of the
published DimensionGPT-0.2B. Nothing here computes or opens anything; `settings.py` turns these
classes into JSON and back.
"""

from dimgpt.config.data import (
    ConversationSourceConfig,
    DataConfig,
    QualityConfig,
    SourceConfig,
    TokenizerConfig,
)
from dimgpt.config.inference import ExportConfig, ExportDtype, ExportTarget, SamplingConfig
from dimgpt.config.model import ModelConfig
from dimgpt.config.training import Precision, Tracker, TrainingConfig

__all__ = [
    "ConversationSourceConfig",
    "DataConfig",
    "ExportConfig",
    "ExportDtype",
    "ExportTarget",
    "ModelConfig",
    "Precision",
    "QualityConfig",
    "SamplingConfig",
    "SourceConfig",
    "TokenizerConfig",
    "Tracker",
    "TrainingConfig",
]
