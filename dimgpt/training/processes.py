"""The processes that train one model together: what they add up, and what they agree on.

Torchrun starts them and `runtime.py` joins them. Alone, a process does nothing here and pays
nothing. Which rows each one takes is in `share.py`, how gradients meet in `distributed.py`.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from dimgpt.config import TrainingConfig
from dimgpt.runtime import Runtime
from dimgpt.training.interrupts import Interrupt, catch_interrupts

T = TypeVar("T")


def is_sharded(config: TrainingConfig, runtime: Runtime) -> bool:
    """Say whether the weights are cut among the processes."""
    return config.sharding == "full" and runtime.num_processes > 1


class Processes:
    """All the processes of a run, seen from one of them.

    Args:
        runtime: Its place among them.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    @property
    def are_several(self) -> bool:
        """Say whether there is more than this one."""
        return self.runtime.num_processes > 1

    def add_up(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over all processes, in each of them, and return it."""
        if self.are_several:
            dist.all_reduce(tensor)
        return tensor

    def lead(self, work: Callable[[], T]) -> T | None:
        """Let the first process do something that may fail, while the others wait; they get `None`.

        Raises:
            SystemExit: In the others, if it failed: the first one says why.
        """
        if not self.are_several:
            return work()
        is_done, result = torch.zeros(1), None
        try:
            if self.runtime.is_first:
                result = work()
                is_done.fill_(1)
        finally:
            dist.broadcast(is_done, src=0)
        if not is_done:
            raise SystemExit(1)
        return result

    def require_same_checkpoint(self, step: int) -> None:
        """Compare the step of the newest checkpoint that each process finds; -1 is none.

        Raises:
            RuntimeError: They differ.
        """
        if not self.are_several:
            return
        found = [torch.zeros(1, dtype=torch.int64) for _ in range(self.runtime.num_processes)]
        dist.all_gather(found, torch.tensor([step]))
        steps = sorted({int(value) for value in found})
        if len(steps) > 1:
            raise RuntimeError(
                f"the processes find different checkpoints, of the steps {steps}: the run's folder "
                "must be on a disk that all machines share"
            )

    @contextlib.contextmanager
    def catch_interrupts(self) -> Iterator["AgreedStop"]:
        """Yield what to ask whether the run is to stop; see `interrupts.py`."""
        # A launcher passes on signals that may have come from the terminal already.
        with catch_interrupts(again=not self.are_several) as interrupt:
            yield AgreedStop(interrupt, self)


class AgreedStop:
    """Whether all processes are to stop: whichever is interrupted stops all, at the same step.

    Alone, an interrupt counts at once; among several it does from the next `agree` on.
    """

    def __init__(self, interrupt: Interrupt, processes: Processes) -> None:
        self._interrupt, self._processes = interrupt, processes
        self._agreed: int | None = None

    def __call__(self) -> bool:
        """Say whether to stop."""
        return self.signal is not None

    @property
    def signal(self) -> int | None:
        """The signal that asked for it."""
        return self._agreed if self._processes.are_several else self._interrupt.signal

    def agree(self) -> None:
        """Ask all processes; each must call this at the same place of its work."""
        if self._processes.are_several and self._agreed is None:
            # On the host: the device's queue is not waited for.
            highest = torch.tensor([self._interrupt.signal or 0])
            dist.all_reduce(highest, dist.ReduceOp.MAX)
            self._agreed = int(highest) or None
