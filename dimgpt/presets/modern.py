"""The modern recipe: improvements since the published one, part by part.

Any part can be added to any preset. `benchmarks/recipes.py` measures each part alone, and the
recipe without each part. Two families have names: `modern` opens in `transformers` and llama.cpp;
`modern-max` learns more from the same text, but neither program opens it.
"""

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

from dimgpt.config import ModelConfig, Preset

PARTS: dict[str, dict[str, Any]] = {
    "Muon": {"optimizer": "muon"},
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
    "cautious decay",
    "long cool-down",
    "normed queries and keys",
    "windows and full layers",
)
FAMILIES = {"modern": MODERN, "modern-max": tuple(PARTS)}
"""Name -> parts."""
_MUON_RATE = 0.01  # the best for the demo, and at the smallest size of the benchmark


def with_parts(preset: Preset, parts: Iterable[str]) -> Preset:
    """Return a preset with parts of the modern recipe.

    Raises:
        KeyError: A part is unknown.
    """
    changes = {name: value for part in parts for name, value in PARTS[part].items()}
    in_model = {field.name for field in fields(ModelConfig)} & changes.keys()
    shape = {name: changes.pop(name) for name in in_model}
    if shape.get("feed_forward") == "relu2":  # two matrices with the parameters of three
        shape["ffn_dim"] = preset.model.ffn_dim * 3 // 2
    return replace(
        preset,
        model=replace(preset.model, **shape),
        pretraining=replace(preset.pretraining, **changes),
        finetuning=replace(preset.finetuning, **changes),
    )


def in_family(preset: Preset, family: str) -> Preset:
    """Return a preset with the parts of a family, named after both.

    In fine-tuning, Muon's learning rate is reduced by the same factor as AdamW's.
    """
    changed = with_parts(preset, FAMILIES[family])
    tuning, training = changed.finetuning, changed.pretraining
    rate = _MUON_RATE * tuning.learning_rate / training.learning_rate
    return replace(
        changed,
        name=f"{preset.name}-{family}",
        description=f"{preset.description}; with the {family} recipe",
        pretraining=replace(training, muon_learning_rate=_MUON_RATE),
        finetuning=replace(tuning, muon_learning_rate=rate),
    )
