"""Which updates are left out: what is not finite, and, when asked, what is far out of line.

The verdict is reached on the device, from tensors, so that no step waits for the host; what is done
about many bad steps in a row is the trainer's matter.
"""

from collections.abc import Mapping
from enum import IntEnum

import torch
from torch import Tensor

WINDOW = 128
_MIN_MEASURED, _NUM_DEVIATIONS = 64, 6.0


class Verdict(IntEnum):
    """What is said of an update; all but the first leave it out."""

    FINE = 0
    NOT_FINITE = 1
    SPIKE = 2
    OVERFLOW = 3
    """float16 gradients beyond its range: the loss was scaled too high, and is scaled lower now."""


class UpdateGuard:
    """Judges each update by its loss and the norm of its gradient.

    Args:
        device: Where the losses are.
        skip_spikes: Leave out what lies more than 6 standard deviations above the mean of the last
            128 steps, once 64 are known; after OLMo 2, https://arxiv.org/abs/2501.00656.
    """

    def __init__(self, device: torch.device, *, skip_spikes: bool) -> None:
        self.skip_spikes = skip_spikes
        self.measured = torch.zeros(2, WINDOW, device=device)
        """Losses and norms of the last finite steps, as a ring."""
        self.count = torch.zeros((), dtype=torch.int64, device=device)
        """Finite steps so far."""

    def judge(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Return the `Verdict` as an int64 scalar on the device, and remember what was seen."""
        values = torch.stack((loss.detach(), norm)).float()
        is_finite = values.isfinite().all()
        verdict = torch.where(is_finite, Verdict.FINE, Verdict.NOT_FINITE)
        if self.skip_spikes:
            verdict = torch.where(is_finite & self._is_spike(values), Verdict.SPIKE, verdict)
            self._remember(values, is_finite)
        return verdict

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""
        return {"measured": self.measured, "count": self.count} if self.skip_spikes else {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` returned; nothing begins anew."""
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name]) if name in tensors else tensor.zero_()

    def _is_spike(self, values: Tensor) -> Tensor:
        is_known = torch.arange(WINDOW, device=values.device) < self.count
        num_known = is_known.sum().clamp(min=1)
        mean = (self.measured * is_known).sum(dim=1) / num_known
        variance = ((self.measured - mean[:, None]).square() * is_known).sum(dim=1) / num_known
        is_above = values > mean + _NUM_DEVIATIONS * variance.sqrt()
        return is_above.any() & (self.count >= _MIN_MEASURED)

    def _remember(self, values: Tensor, is_finite: Tensor) -> None:
        # Spikes are remembered, too: a level that stays is one that the run gets used to.
        place = torch.arange(WINDOW, device=values.device) == self.count % WINDOW
        self.measured = torch.where(place & is_finite, values[:, None], self.measured)
        self.count = self.count + is_finite
