"""Decides on the device which updates to skip, so that no step waits for the host.

It always skips non-finite updates. It skips outliers when `skip_spikes` is set, and float16
overflows while the loss is scaled. The trainer decides what happens after many bad steps in a row.

The loss scaling is written by hand: torch's `GradScaler` waits for the device unless the optimizer
is fused, and it cannot tell an overflow from the other reasons to skip an update.
"""

from collections.abc import Mapping
from enum import IntEnum

import torch
from torch import Tensor

WINDOW = 128
_MIN_MEASURED, _NUM_DEVIATIONS = 64, 6.0
_FIRST_SCALE, _GROWTH_INTERVAL = 2.0**16, 2_000


class Verdict(IntEnum):
    """Whether an update is applied; every value but `FINE` skips it.

    The record of a skipped step in `history.jsonl` has the name of its verdict in small letters.
    """

    FINE = 0
    NOT_FINITE = 1
    SPIKE = 2
    FLOAT16_OVERFLOW = 3
    """A gradient exceeded the range of float16; the loss scale is halved."""


class UpdateGuard:
    """Judges each update by its loss and the norm of its gradient.

    Args:
        skip_spikes: Skip updates more than 6 standard deviations above the mean of the last 128
            steps, once 64 are known; after OLMo 2, https://arxiv.org/abs/2501.00656.
        scales_loss: Scale the loss so that small float16 gradients do not vanish. The scale halves
            at each overflow and doubles after 2,000 steps without one: Micikevicius et al. 2018,
            https://arxiv.org/abs/1710.03740, section 3.2.
    """

    def __init__(
        self, device: torch.device, *, skip_spikes: bool = False, scales_loss: bool = False
    ) -> None:
        self.skip_spikes, self.scales_loss = skip_spikes, scales_loss
        self.measured = torch.zeros(2, WINDOW, device=device)
        """Losses and norms of the last finite steps, as a ring buffer."""
        self.count = torch.zeros((), dtype=torch.int64, device=device)
        """Finite steps so far."""
        self.scale = torch.full((), _FIRST_SCALE if scales_loss else 1.0, device=device)
        """Factor on the loss before the backward pass."""
        self.num_good_steps = torch.zeros((), dtype=torch.int64, device=device)
        """Steps since the scale last changed."""

    def judge(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Return the `Verdict` as an int64 scalar on the device, and remember the values."""
        values = torch.stack((loss.detach(), norm)).float()
        is_finite = values.isfinite().all()
        verdict = torch.where(is_finite, Verdict.FINE, Verdict.NOT_FINITE)
        if self.skip_spikes:
            verdict = torch.where(is_finite & self._is_spike(values), Verdict.SPIKE, verdict)
            self._remember(values, is_finite)
        if self.scales_loss:
            is_overflow = loss.isfinite() & ~norm.isfinite() & (self.scale > 1)
            verdict = torch.where(is_overflow, Verdict.FLOAT16_OVERFLOW, verdict)
            self._rescale(is_overflow)
        return verdict

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""
        kept: dict[str, Tensor] = {}
        if self.skip_spikes:
            kept |= {"measured": self.measured, "count": self.count}
        if self.scales_loss:
            kept |= {"loss_scale": self.scale, "num_good_steps": self.num_good_steps}
        return kept

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `tensors` returned; missing values get their initial value."""
        fresh = UpdateGuard(
            self.count.device, skip_spikes=self.skip_spikes, scales_loss=self.scales_loss
        ).tensors()
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors.get(name, fresh[name]))

    def _is_spike(self, values: Tensor) -> Tensor:
        is_known = torch.arange(WINDOW, device=values.device) < self.count
        num_known = is_known.sum().clamp(min=1)
        mean = (self.measured * is_known).sum(dim=1) / num_known
        variance = ((self.measured - mean[:, None]).square() * is_known).sum(dim=1) / num_known
        is_above = values > mean + _NUM_DEVIATIONS * variance.sqrt()
        return is_above.any() & (self.count >= _MIN_MEASURED)

    def _remember(self, values: Tensor, is_finite: Tensor) -> None:
        # Spikes enter the window too, so that a lasting rise becomes the new normal.
        place = torch.arange(WINDOW, device=values.device) == self.count % WINDOW
        self.measured = torch.where(place & is_finite, values[:, None], self.measured)
        self.count = self.count + is_finite

    def _rescale(self, is_overflow: Tensor) -> None:
        good = torch.where(is_overflow, 0, self.num_good_steps + 1)
        grown = torch.where(good == _GROWTH_INTERVAL, self.scale * 2, self.scale)
        self.scale = torch.where(is_overflow, (self.scale / 2).clamp(min=1.0), grown)
        self.num_good_steps = good % _GROWTH_INTERVAL
