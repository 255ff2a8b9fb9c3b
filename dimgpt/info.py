"""Sizes and costs of a preset or of a model folder, as rows of a table."""

import shutil
from pathlib import Path

from dimgpt.config import ModelConfig
from dimgpt.model.flops import num_parameters, training_flops_per_token
from dimgpt.presets import PRESETS, Preset
from dimgpt.runtime import Runtime, available_memory, describe_machine, peak_flops
from dimgpt.weights.store import load_model

# Weights, gradients and two moments in float32.
_TRAINING_BYTES_PER_PARAMETER = 16


def describe_model(config: ModelConfig) -> dict[str, str]:
    """Return what a model of this shape weighs and costs."""
    parameters = num_parameters(config)
    return {
        "parameters": f"{parameters:,}",
        "context": f"{config.context_length:,} tokens",
        "vocabulary": f"{config.vocab_size:,} tokens",
        "memory for inference (bf16)": _size(2 * parameters),
        "memory for training, before activations": _size(
            _TRAINING_BYTES_PER_PARAMETER * parameters
        ),
        "FLOPs per trained token": f"{training_flops_per_token(config):.3g}",
    }


def describe_preset(preset: Preset) -> dict[str, str]:
    """Return what a preset is, trains on, and costs."""
    tokens = preset.pretraining.sequences_per_step * preset.model.context_length
    return {
        "what it is": preset.description,
        **describe_model(preset.model),
        "tokens per step": f"{tokens:,}",
        "tokens of the pretraining": f"{tokens * preset.pretraining.max_steps:,}",
        "sources": ", ".join(source.path for source in preset.data.sources),
    }


def describe_folder(folder: Path) -> dict[str, str]:
    """Return what a model folder holds."""
    return describe_model(load_model(folder).config)


def look_around(runtime: Runtime) -> dict[str, str]:
    """Return what this machine has, and which presets it carries."""
    rows = describe_machine(runtime)
    return rows | {f'preset "{name}"': advise(preset, runtime) for name, preset in PRESETS.items()}


def advise(preset: Preset, runtime: Runtime, folder: Path = Path()) -> str:
    """Say in a few words whether a preset fits this machine, and how long it takes."""
    model, run = preset.model, preset.pretraining
    needed = 1.5 * _TRAINING_BYTES_PER_PARAMETER * num_parameters(model)
    if needed > available_memory(runtime):
        return f"needs about {_size(needed)} of memory: choose a smaller one"
    tokens = run.sequences_per_step * model.context_length * run.max_steps
    if shutil.disk_usage(folder).free < 4 * tokens:
        return f"needs about {_size(4 * tokens)} of disk: choose a smaller one"
    # Half of the peak is what training reaches on a good day.
    hours = tokens * training_flops_per_token(model) / (0.5 * peak_flops(runtime)) / 3600
    time = f"{hours:,.0f} hours" if hours > 2 else f"{max(1, 60 * hours):.0f} minutes"
    return f"fits; pretraining takes about {time} here"


def _size(num_bytes: float) -> str:
    if num_bytes > 2**30:
        return f"{num_bytes / 2**30:.1f} GiB"
    return f"{num_bytes / 2**20:.{0 if num_bytes > 2**20 else 2}f} MiB"
