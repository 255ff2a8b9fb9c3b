"""Checkpoints written while the run goes on.

A step is held up by the copy of its tensors into host memory alone; a thread writes them. The
memory of the copy is kept and used again, so that one write at a time is under way.
"""

import dataclasses
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dimgpt.training.checkpoint import Checkpoint, CheckpointStore

log = logging.getLogger(__name__)


class CheckpointWriter:
    """Saves into a store, in the background.

    Args:
        store: Where to.
        device: Where the tensors are.
    """

    def __init__(self, store: CheckpointStore, device: torch.device) -> None:
        self.store, self.device = store, device
        self.last_saved = -1
        """Step of the newest checkpoint with everything in it; -1 before the first."""
        self.error: OSError | None = None
        """Why the last write failed; `None` if it did not."""
        self._thread: threading.Thread | None = None
        self._copies: dict[tuple[str, str], Tensor] = {}

    def submit(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: dict[str, Any],
        *,
        kinds: Sequence[str],
        offsets: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        """Copy the tensors, and begin to write them; waits if the write before is not done.

        Args:
            step: Optimizer steps taken.
            tensors: By file and name; the caller may change them as soon as this returns.
            state: What JSON holds; must not change any more.
            kinds: Checkpoints to make of it: `best` takes the weights alone.
            offsets: Of tensors that are parts, where in the whole ones they begin.
        """
        self.wait()
        copies = self._copy(tensors)
        copied = Checkpoint(step=step, tensors=copies, state=state, offsets=offsets or {})
        copied_event = self._mark()

        def write() -> None:
            if copied_event is not None:
                copied_event.synchronize()
            self._write(copied, kinds)

        # No daemon: a process that is told to end at once ends with a whole checkpoint.
        self._thread = threading.Thread(target=write, name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Return when nothing is under way."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, checkpoint: Checkpoint, kinds: Sequence[str]) -> None:
        self.error = None
        try:
            for kind in kinds:
                if kind == "best":
                    weights = {"model": checkpoint.tensors["model"]}
                    best = dataclasses.replace(checkpoint, tensors=weights)
                    self.store.save(best, kind=kind)
                else:
                    self.store.save(checkpoint, kind=kind)
                    self.last_saved = checkpoint.step
        except OSError as error:
            self.error = error
            log.warning(
                "the checkpoint of step %d could not be written (%s): the one before it stays, "
                "training goes on; free some space, it is tried again at the next one",
                checkpoint.step,
                error,
            )

    def _copy(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        copies: dict[str, dict[str, Tensor]] = {}
        for file, named in tensors.items():
            copies[file] = {}
            for name, tensor in named.items():
                copy = self._copies.get((file, name))
                if copy is None or copy.shape != tensor.shape or copy.dtype != tensor.dtype:
                    copy = self._new_copy(tensor)
                    self._copies[file, name] = copy
                copies[file][name] = copy.copy_(tensor.detach(), non_blocking=copy.is_pinned())
        return copies

    def _new_copy(self, tensor: Tensor) -> Tensor:
        # From page-locked memory the copy runs beside the host, after the kernels queued so far.
        is_pinned = self.device.type == "cuda" and tensor.device.type == "cuda"
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=is_pinned)

    def _mark(self) -> torch.cuda.Event | None:
        if self.device.type != "cuda":
            return None
        event = torch.cuda.Event()
        event.record()
        return event
