"""Muon: the momentum of each matrix, with its singular values pushed to about 1, is the update.

It trains the matrices inside the blocks; AdamW trains the embedding, the output layer and the
vectors. Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. A group may have a
cautious decay, only of the weights that the update shrinks as well: Chen et al. 2025,
https://arxiv.org/abs/2510.12402. Where an update is nearly 0, rounding decides its sign, so runs on
several processes then differ from those on one by some 1e-6.

`torch.optim.Muon` does not honour `found_inf`, and takes no sharded parameters. So the loop is
here, and its results are the same.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# The polynomial a x + b x^3 + c x^5 brings singular values in 0..1 close to 1 within five steps.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_NUM_STEPS = 5
_SMALLEST_NORM = 1e-7


class Muon(torch.optim.Optimizer):
    """Muon for the groups that have a `momentum`, `adam` for all others.

    Args:
        groups: Groups of matrices, each with `name`, `params`, `weight_decay` and `momentum`;
            `is_cautious` if their decay is.
        adam: The optimizer of all other parameters; its groups and its state become part of this.
    """

    found_inf: Tensor | None = None

    def __init__(self, groups: Sequence[dict[str, Any]], adam: torch.optim.Optimizer) -> None:
        super().__init__(groups, defaults={"lr": 0.0})
        self.param_groups += adam.param_groups
        self._adam = adam
        adam.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters; if `found_inf` is 1, change neither parameters nor state."""
        assert closure is None
        self._adam.found_inf = self.found_inf  # type: ignore[attr-defined]
        self._adam.step()
        for group in self.param_groups:
            if "momentum" in group:
                self._update([each for each in group["params"] if each.grad is not None], group)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        means, ahead = [], []
        for parameter in parameters:
            assert parameter.grad is not None
            state, momentum = self.state[parameter], group["momentum"]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            means.append(torch.lerp(parameter.grad, state["momentum"], momentum))
            # As Nesterov: look ahead along the new mean.
            ahead.append(torch.lerp(parameter.grad, means[-1], momentum))
        updates = orthogonalise_all(ahead)
        for parameter, mean, update in zip(parameters, means, updates, strict=True):
            self._move(parameter, mean, update, group)

    def _move(self, parameter: Tensor, mean: Tensor, update: Tensor, group: dict[str, Any]) -> None:
        num_rows, num_columns = parameter.shape[-2:]
        rate = group["lr"] * max(1.0, num_rows / num_columns) ** 0.5
        decay: Tensor | float = group["lr"] * group["weight_decay"]
        if group.get("is_cautious"):
            decay = decay * (update * parameter > 0)
        new = parameter * (1 - decay) - rate * update
        for old, value in ((self.state[parameter]["momentum"], mean), (parameter, new)):
            old.copy_(value if self.found_inf is None else value.where(self.found_inf == 0, old))


def orthogonalise_all(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Return what `orthogonalise` returns for each; on a GPU, equal shapes are computed together.

    There, to launch the products of one matrix takes longer than to compute them.
    """
    is_launched = all(type(each) is Tensor and each.is_cuda for each in matrices)
    return orthogonalise_stacked(matrices) if is_launched else [*map(orthogonalise, matrices)]


def orthogonalise_stacked(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Orthogonalise matrices (N, M), and stacks (E, N, M), those of the same (N, M) together."""
    stacks: dict[torch.Size, list[int]] = {}
    for number, matrix in enumerate(matrices):
        stacks.setdefault(matrix.shape[-2:], []).append(number)
    results: dict[int, Tensor] = {}
    for shape, numbers in stacks.items():
        parts = [matrices[number].reshape(-1, *shape) for number in numbers]
        together = orthogonalise(torch.cat(parts)).split([len(part) for part in parts])
        results |= dict(zip(numbers, together, strict=True))
    return [results[number].view_as(matrix) for number, matrix in enumerate(matrices)]


def orthogonalise(matrix: Tensor) -> Tensor:
    """Return matrices with the same singular vectors, and singular values of about 0.7 to 1.2.

    Computed by Newton-Schulz steps, in bfloat16 on CUDA, which is precise enough.

    Args:
        matrix: (N, M), or a stack of matrices, (E, N, M), each orthogonalised separately. A sharded
            matrix is gathered first; its result is sharded in the same way.
    """
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(matrix, DTensor):
        whole = orthogonalise(matrix.full_tensor())
        # Every process has computed the whole matrix, so nothing has to be sent.
        return distribute_tensor(whole, matrix.device_mesh, matrix.placements, src_data_rank=None)
    is_tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if is_tall else matrix
    if matrix.is_cuda:
        x = x.bfloat16()
    a, b, c = _COEFFICIENTS
    add_product = torch.addmm if x.dim() == 2 else torch.baddbmm
    # After this, no singular value is above 1: none exceeds the Frobenius norm.
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=_SMALLEST_NORM)
    for _ in range(_NUM_STEPS):
        gram = x @ x.mT
        x = add_product(x, add_product(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).type_as(matrix)
