"""The factor on the loss that keeps small float16 gradients from vanishing.

It lives on the device and is part of a checkpoint. In every other precision it is 1 and stays.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

_FIRST, _GROWTH_INTERVAL = 2.0**16, 2_000


class LossScaler:
    """Halves the factor at each overflow, doubles it after 2,000 steps without one.

    Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740, section 3.2.
    """

    def __init__(self, device: torch.device, *, is_enabled: bool) -> None:
        self.is_enabled = is_enabled
        self.scale = torch.full((), _FIRST if is_enabled else 1.0, device=device)
        self.num_good_steps = torch.zeros((), dtype=torch.int64, device=device)

    def update(self, is_overflow: Tensor) -> None:
        """Take note of a step, a boolean scalar on the device."""
        good = torch.where(is_overflow, 0, self.num_good_steps + 1)
        grown = torch.where(good == _GROWTH_INTERVAL, self.scale * 2, self.scale)
        self.scale = torch.where(is_overflow, (self.scale / 2).clamp(min=1.0), grown)
        self.num_good_steps = good % _GROWTH_INTERVAL

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""
        if not self.is_enabled:
            return {}
        return {"loss_scale": self.scale, "num_good_steps": self.num_good_steps}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` returned; where nothing was kept, begin anew."""
        for name, tensor in LossScaler(self.scale.device, is_enabled=True).tensors().items():
            if self.is_enabled:
                self.tensors()[name].copy_(tensors.get(name, tensor))
