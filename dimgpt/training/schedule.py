"""The learning rate of every step, as a pure function."""

import math

from dimgpt.config import TrainingConfig


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Return the rate of a step: linear warm-up from 0, a cosine down, then the minimum.

    Loshchilov and Hutter 2017, "SGDR", https://arxiv.org/abs/1608.03983, eq. 5, without restarts.

    Args:
        step: Number of the step; the first one that is taken is 1.
        config: Its `warmup_steps` and `decay_steps` follow one another.
    """
    if step < config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    progress = min((step - config.warmup_steps) / config.decay_steps, 1.0)
    height = (1 + math.cos(math.pi * progress)) / 2
    return config.min_learning_rate + height * (config.learning_rate - config.min_learning_rate)
