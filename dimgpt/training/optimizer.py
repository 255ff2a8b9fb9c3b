"""The optimizer (AdamW, or Muon and AdamW), its groups of parameters, and the learning rates.

Every optimizer here honours `found_inf` as torch's fused ones do: a tensor on the device that is 1
if the update must be skipped. `step.py` sets it. A group is one of torch's: a dictionary of its
`name`, `params` and `weight_decay`. A group may have a `learning_rate_scale`, a factor on the
learning rate of the run, and a `schedule`, a function from the step to a learning rate.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from dimgpt.config import TrainingConfig
from dimgpt.model.lora import ADAPTER_PARTS
from dimgpt.training.muon import Muon

_FIRST_MOMENTUM = 0.85


def parameter_groups(model: nn.Module, config: TrainingConfig) -> list[dict[str, Any]]:
    """Split the trainable parameters into matrices and vectors (norms, biases).

    With Muon, the matrices inside the blocks are a group of their own. AdamW keeps two kinds of
    them: the routers of experts, because each of their rows stands for a choice as in the output
    layer, and adapters, because their two matrices have a meaning only as a product.
    """
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    inner: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_inner = config.optimizer == "muon" and name.startswith("blocks.")
        is_inner = is_inner and not name.endswith(("router.weight", *ADAPTER_PARTS))
        group = vectors if parameter.dim() < 2 else inner if is_inner else matrices
        if parameter.requires_grad:
            group.append(parameter)
    vector_decay = config.weight_decay if config.decay_vectors else 0.0
    groups: list[dict[str, Any]] = [
        {"name": "matrices", "params": matrices, "weight_decay": config.weight_decay},
        {"name": "vectors", "params": vectors, "weight_decay": vector_decay},
        {
            "name": "matrices of the blocks",
            "params": inner,
            "weight_decay": config.muon_weight_decay,
            "learning_rate_scale": config.muon_learning_rate / config.learning_rate,
            "momentum": config.muon_momentum,
            "is_cautious": config.muon_cautious_decay,
        },
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(
    model: nn.Module, config: TrainingConfig, groups: Sequence[dict[str, Any]] | None = None
) -> torch.optim.Optimizer:
    """Return the config's optimizer over groups, by default those of `parameter_groups`.

    AdamW: Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101. Muon, if the config names
    it, gets the groups that have a `momentum`.

    Raises:
        ValueError: A trainable parameter is in no group, or in two.
    """
    if groups is None:
        groups = parameter_groups(model, config)
    _require_each_once(model, groups)
    adam = torch.optim.AdamW(
        [group for group in groups if "momentum" not in group],
        lr=config.learning_rate,
        betas=config.adam_betas,
        eps=config.adam_eps,
        fused=True,
    )
    inner = [group for group in groups if "momentum" in group]
    return Muon(inner, adam) if inner else adam


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Return the rate of a step: linear warm-up from 0, then the shape that the config names.

    cosine: Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983, eq. 5, without restarts.
    wsd with `sqrt`: Hägele et al. 2024, https://arxiv.org/abs/2405.18392, section 3.

    Args:
        step: Number of the step; the first one that is taken is 1.
        config: Its `num_decay_steps` follow the warm-up; with `wsd` they end at `max_steps`.
    """
    if step < config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    height = _height(step, config)
    return config.min_learning_rate + height * (config.learning_rate - config.min_learning_rate)


def _height(step: int, config: TrainingConfig) -> float:
    """Return the rate after the warm-up, as a share of the way from the minimum to the peak."""
    is_wsd = config.schedule == "wsd"
    start = config.max_steps - config.num_decay_steps if is_wsd else config.warmup_steps
    progress = min(max(step - start, 0) / config.num_decay_steps, 1.0)
    if config.schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    if is_wsd and config.cooldown == "sqrt":
        return 1 - math.sqrt(progress)
    return 1 - progress


def set_learning_rates(
    optimizer: torch.optim.Optimizer, step: int, config: TrainingConfig
) -> float:
    """Set each group's learning rate, momentum and decay; return the run's learning rate."""
    rate = learning_rate_at(step, config)
    for group in optimizer.param_groups:
        own = group["schedule"](step) if "schedule" in group else rate
        group["lr"] = own * group.get("learning_rate_scale", 1.0)
        if "momentum" in group:
            group["momentum"] = muon_momentum_at(step, config)
        if group.get("is_cautious"):
            group["weight_decay"] = config.muon_weight_decay * max(1 - step / config.max_steps, 0)
    return rate


def muon_momentum_at(step: int, config: TrainingConfig) -> float:
    """Return Muon's momentum at a step: it rises linearly from 0.85, or from a lower peak."""
    start = min(_FIRST_MOMENTUM, config.muon_momentum)
    progress = min(step / config.muon_warmup_steps, 1.0) if config.muon_warmup_steps else 1.0
    return start + progress * (config.muon_momentum - start)


def _require_each_once(model: nn.Module, groups: Sequence[dict[str, Any]]) -> None:
    """Refuse groups that miss a parameter or contain it twice; tied ones count once."""
    places: dict[int, list[str]] = {}
    for group in groups:
        for parameter in group["params"]:
            places.setdefault(id(parameter), []).append(group["name"])
    for name, parameter in model.named_parameters():
        found = places.get(id(parameter), [])
        if parameter.requires_grad and len(found) != 1:
            raise ValueError(
                f"{name} is in the groups {found}: put every trained parameter into exactly one "
                "group"
            )


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, model: nn.Module
) -> dict[str, torch.Tensor]:
    """Return the optimizer's moments under the names of the parameters they belong to."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Restore what `optimizer_tensors` returned."""
    parameters = dict(model.named_parameters())
    for path, value in tensors.items():
        name, key = path.rsplit("/", maxsplit=1)
        parameter = parameters[name]
        # Fused AdamW needs its step counter on the parameter's device.
        optimizer.state[parameter][key] = value.to(parameter.device)
