"""The modern recipe: improvements since the published one, part by part.

Any part can be added to any preset. `benchmarks/recipes.py` measures each part alone, and the
recipe without each part. The `-modern` presets use the parts that gain something; `transformers`
and llama.cpp open their models.
"""

from collections.abc import Collection, Iterable
from dataclasses import fields, replace
from typing import Any

from dimgpt.config import ModelConfig, Preset

PARTS: dict[str, dict[str, Any]] = {
    "Muon": {"optimizer": "muon", "muon_learning_rate": 0.01},
    "faster embedding": {"learning_rate": 0.01},  # with Muon, this is the rate of AdamW's part
    "cautious decay": {"muon_weight_decay": 0.1, "muon_cautious_decay": True},
    "long cool-down": {
        "schedule": "wsd",
        "cooldown": "linear",
        "min_learning_rate": 0.0,
        "decay_steps": None,
    },
    "normed queries and keys": {"qk_norm": True},
    "windows and full layers": {"attention_pattern": ("window", "full")},
    "untied output": {"tie_embeddings": False},
    "zero outputs": {"scaled_outputs": "zero"},
    "squared ReLU": {"feed_forward": "relu2"},
    "capped logits": {"logit_cap": 15.0},
    "stream scalars": {"use_stream_scalars": True},
    "value embeddings": {"use_value_embeddings": True},
}
"""Part -> fields of `ModelConfig`, or of `TrainingConfig` in both stages."""
MODERN = (
    "Muon",
    "faster embedding",
    "long cool-down",
    "normed queries and keys",
    "untied output",
    "zero outputs",
)
_RATES = ("learning_rate", "muon_learning_rate")


def with_parts(preset: Preset, parts: Iterable[str]) -> Preset:
    """Return a preset with parts of the modern recipe.

    In fine-tuning, a rate is reduced by the same factor as the preset's.

    Raises:
        KeyError: A part is unknown.
    """
    changes = {name: value for part in parts for name, value in PARTS[part].items()}
    in_model = {field.name for field in fields(ModelConfig)} & changes.keys()
    shape = {name: changes.pop(name) for name in in_model}
    if shape.get("feed_forward") == "relu2":  # two matrices with the parameters of three
        shape["ffn_dim"] = preset.model.ffn_dim * 3 // 2
    rates = {name: value for name, value in changes.items() if name in _RATES}
    ratio = preset.finetuning.learning_rate / preset.pretraining.learning_rate
    reduced = {name: value * ratio for name, value in rates.items()}
    return replace(
        preset,
        model=replace(preset.model, **shape),
        pretraining=replace(preset.pretraining, **changes),
        finetuning=replace(preset.finetuning, **changes | reduced),
    )


def modern(preset: Preset, *, leave_out: Collection[str] = ()) -> Preset:
    """Return a preset with the modern recipe, named after both, without some of its parts."""
    changed = with_parts(preset, (part for part in MODERN if part not in leave_out))
    return replace(
        changed,
        name=f"{preset.name}-modern",
        description=f"{preset.description}; with the modern recipe",
    )
