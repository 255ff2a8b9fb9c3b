"""The learning rate of every step, as a pure function."""

import math

from dimgpt.config import TrainingConfig


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Return the rate of a step: linear warm-up from 0, then the shape that the config names.

    cosine: Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983, eq. 5, without restarts.
    wsd with `sqrt`: Hägele et al. 2024, https://arxiv.org/abs/2405.18392, section 3.

    Args:
        step: Number of the step; the first one that is taken is 1.
        config: Its `decay_steps` follow the warm-up; with `wsd` they end at `max_steps`.
    """
    if step < config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    height = _height(step, config)
    return config.min_learning_rate + height * (config.learning_rate - config.min_learning_rate)


def _height(step: int, config: TrainingConfig) -> float:
    """Return where between the minimum (0) and the peak (1) a step after the warm-up is."""
    is_wsd = config.schedule == "wsd"
    start = config.max_steps - config.decay_steps if is_wsd else config.warmup_steps
    progress = min(max(step - start, 0) / config.decay_steps, 1.0)
    if config.schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    if is_wsd and config.cooldown == "sqrt":
        return 1 - math.sqrt(progress)
    return 1 - progress
