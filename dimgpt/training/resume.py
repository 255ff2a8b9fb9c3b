"""Whether a checkpoint belongs to the run that is asked for, and what has changed since."""

from collections.abc import Mapping
from typing import Any

from dimgpt.config import ModelConfig, TrainingConfig
from dimgpt.settings import from_dict, to_dict

Record = dict[str, Any]


def require_same_run(
    saved: Record, *, model: ModelConfig, vocabulary: str, others: Mapping[str, str]
) -> None:
    """Compare the architecture and the fingerprints.

    Args:
        saved: State of a checkpoint.
        model: What is to be trained.
        vocabulary: Fingerprint of the vocabulary.
        others: Other fingerprints by name; where either side knows none, they fit.

    Raises:
        ValueError: They differ; every difference is named with both values.
    """
    differences = _differences(from_dict(ModelConfig, saved["model"]), model)
    known = saved.get("fingerprints", {})
    pairs = {name: (known.get(name), value) for name, value in others.items()}
    pairs = {name: pair for name, pair in pairs.items() if all(pair)}
    for name, (old, new) in {"vocabulary": (saved["vocabulary"], vocabulary), **pairs}.items():
        if old != new:
            differences[name] = f"{old[:12]} -> {new[:12]}"
    if differences:
        listed = "; ".join(f"{name}: {change}" for name, change in differences.items())
        raise ValueError(
            f"this folder holds a run of another model or other data (saved -> asked for: "
            f"{listed}): go back to what it began with, or train under another name"
        )


def changed_settings(saved: Record, config: TrainingConfig) -> dict[str, str]:
    """Return the settings of the run that are no longer what they were, as `old -> new`."""
    return _differences(from_dict(TrainingConfig, saved["training"]), config)


def _differences(old: Any, new: Any) -> dict[str, str]:
    before = to_dict(old)
    return {
        name: f"{before[name]} -> {value}"
        for name, value in to_dict(new).items()
        if before[name] != value
    }
