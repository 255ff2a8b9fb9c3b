"""The optimizer: which parameters decay, and AdamW over them."""

import torch
from torch import nn

from dimgpt.config import TrainingConfig


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, object]]:
    """Split the trainable parameters: matrices decay, vectors (the norms' weights) do not.

    Every parameter is in exactly one group; tied ones count once.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.dim() >= 2]
    vectors = [parameter for parameter in parameters if parameter.dim() < 2]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """Return AdamW over the model's groups; the trainer sets the learning rate before each step.

    Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101.
    """
    return torch.optim.AdamW(
        parameter_groups(model, weight_decay=config.weight_decay),
        lr=config.learning_rate,
        betas=config.adam_betas,
        eps=config.adam_eps,
        fused=True,
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
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, torch.Tensor]
) -> None:
    """Put back what `optimizer_tensors` returned."""
    parameters = dict(model.named_parameters())
    for path, value in tensors.items():
        name, key = path.rsplit("/", maxsplit=1)
        parameter = parameters[name]
        # AdamW counts its steps on the parameter's device when it is fused.
        optimizer.state[parameter][key] = value.to(parameter.device)
