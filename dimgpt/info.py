"""Sizes and costs of a preset or of a model folder, as rows of a table."""

import shutil
from pathlib import Path

from dimgpt.config import ModelConfig
from dimgpt.model.flops import num_parameters, training_flops_per_token
from dimgpt.presets import PRESETS, Preset
from dimgpt.runtime import PEAK_FLOPS, Runtime, available_memory, describe_machine, peak_flops
from dimgpt.weights.card import active_rows, architecture_rows
from dimgpt.weights.originals import load_weights

# For weights, gradients and two moments in float32.
_TRAINING_BYTES_PER_PARAMETER = 16
PEAK_SHARE = 0.4
"""Share of a peak that a training reaches: 46 % of an RTX 3090, and 38 % of an H100, at 0.2 B."""


def describe_model(config: ModelConfig) -> dict[str, str]:
    """Return the size and the costs of a model of this shape."""
    parameters, trainable = num_parameters(config), num_parameters(config, only_trainable=True)
    return {
        "parameters": f"{parameters:,}",
        **{name.lower(): row for name, row in active_rows(config).items()},
        "trainable parameters": f"{trainable:,}",
        "other parameters": f"{parameters - trainable:,}",
        "context": f"{config.context_length:,} tokens",
        "vocabulary": f"{config.vocab_size:,} tokens",
        **{name.lower(): row for name, row in architecture_rows(config).items()},
        "memory for inference (bf16)": memory_size(2 * parameters),
        "memory for training, before activations": memory_size(
            _TRAINING_BYTES_PER_PARAMETER * parameters
        ),
        "FLOPs per trained token": f"{training_flops_per_token(config):.3g}",
    }


def describe_preset(preset: Preset) -> dict[str, str]:
    """Return the description, data and costs of a preset."""
    tokens = preset.pretraining.sequences_per_step * preset.model.context_length
    return {
        "what it is": preset.description,
        **describe_model(preset.model),
        "tokens per step": f"{tokens:,}",
        "tokens of the pretraining": f"{num_tokens(preset):,}",
        "sources": ", ".join(source.path for source in preset.data.sources),
    }


def describe_weights(path: Path) -> dict[str, str]:
    """Return the size and the costs of a model folder, or of a file of another system."""
    return describe_model(load_weights(path).config)


def look_around(runtime: Runtime) -> dict[str, str]:
    """Return the hardware of this machine, and which presets it can train."""
    memory, disk = available_memory(runtime), shutil.disk_usage(Path()).free
    flops = peak_flops(runtime)
    return describe_machine(runtime) | {
        f'preset "{name}"': advise(preset, memory=memory, disk=disk, flops=flops)
        for name, preset in PRESETS.items()
    }


def advise(preset: Preset, *, memory: float, disk: float, flops: float) -> str:
    """Return a short text: whether a machine can train a preset, and how long it takes.

    Args:
        preset: The preset to train.
        memory: Free bytes of the device's memory.
        disk: Free bytes of the disk.
        flops: Peak of the device, FLOP/s.
    """
    needed = {"memory": training_memory(preset.model), "disk": 4 * num_tokens(preset)}
    for resource, free in (("memory", memory), ("disk", disk)):
        if needed[resource] > free:
            return (
                f"needs about {memory_size(needed[resource])} of {resource}: choose a smaller one"
            )
    return f"fits; pretraining takes about {_duration(_training_hours(preset, flops))} here"


def compare_sizes(flops: float) -> list[dict[str, str]]:
    """Return size and costs of every preset on a device with a peak of `flops`, one row each."""
    return [
        {
            "preset": name,
            "parameters": f"{num_parameters(preset.model):,}",
            "training": memory_size(training_memory(preset.model)),
            "inference (bf16)": memory_size(2 * num_parameters(preset.model)),
            "FLOPs a token": f"{training_flops_per_token(preset.model):.3g}",
            "tokens": f"{num_tokens(preset):.3g}",
            "tokens/s here": f"{_training_speed(preset.model, flops):,.0f}",
            "time here": _duration(_training_hours(preset, flops)),
        }
        for name, preset in PRESETS.items()
    ]


def compare_cards() -> list[dict[str, str]]:
    """Return the duration of every preset's pretraining on known GPUs, one row each."""
    return [
        {"card": card}
        | {
            name: f"{_training_speed(preset.model, flops):,.0f}/s, "
            f"{_duration(_training_hours(preset, flops))}"
            for name, preset in PRESETS.items()
        }
        for card, flops in PEAK_FLOPS.items()
    ]


def training_memory(model: ModelConfig) -> float:
    """Return the bytes of memory for training, plus 50 % for activations."""
    return 1.5 * _TRAINING_BYTES_PER_PARAMETER * num_parameters(model)


def num_tokens(preset: Preset) -> int:
    """Return the tokens of a preset's pretraining."""
    run = preset.pretraining
    return run.sequences_per_step * preset.model.context_length * run.max_steps


def _training_speed(model: ModelConfig, flops: float) -> float:
    """Return tokens per second at a usual share of the peak."""
    return PEAK_SHARE * flops / training_flops_per_token(model)


def _training_hours(preset: Preset, flops: float) -> float:
    return num_tokens(preset) / _training_speed(preset.model, flops) / 3600


def _duration(hours: float) -> str:
    if hours > 72:
        return f"{hours / 24:,.0f} days"
    if hours > 2:
        return f"{hours:,.0f} hours"
    minutes = max(1, round(60 * hours))
    return f"{minutes} minute{'s' * (minutes > 1)}"


def memory_size(num_bytes: float) -> str:
    """Write a number of bytes in MiB or GiB."""
    if num_bytes > 2**30:
        return f"{num_bytes / 2**30:.1f} GiB"
    return f"{num_bytes / 2**20:.{0 if num_bytes > 2**20 else 2}f} MiB"
