"""The KV cache: keys and values of the positions that a model has read."""

import copy
from typing import Any

import torch
from torch import Tensor

from dimgpt.config import ModelConfig


class KVCache:
    """Keys and values of all layers, allocated at the start.

    A layer with a window of W tokens keeps a ring of W + 1 positions: position p is stored in slot
    p % (W + 1), and overwrites the position that just left the window. Keys are stored with their
    rotation, so their order in the ring does not matter. Other layers keep the full context.

    Rows may have read different numbers of positions. They then take one new position at a time.

    Args:
        batch_size: B, sequences that are generated together.
        like: A weight of the model; gives device and dtype.
        runs_on: Accept more than `context_length` positions.
        use_compile: Compile the forward pass of single tokens; see `for_one_step`.

    Raises:
        ValueError: `runs_on` is set, and some layer has no window shorter than the context.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        *,
        like: Tensor,
        runs_on: bool = False,
        use_compile: bool = False,
    ) -> None:
        if runs_on and not config.can_run_on:
            raise ValueError(
                "beyond_context is 'run_on': that needs rotary positions, and in every layer a "
                "window that is shorter than the context; use 'crop' with this model"
            )
        self.runs_on, self.use_compile = runs_on, use_compile
        self.lengths = [0] * batch_size
        """Positions that each row has read; `advance` updates them after all layers."""
        self.graphs: dict[Any, Any] = {}
        """CUDA graphs that read and write this cache, and live as long; see `compiled_step.py`."""
        self._context_length = config.context_length
        self._places: Tensor | None = None  # of a view for one step: of the new positions, (B,)
        longest, heads = config.context_length, (config.num_kv_heads, config.head_dim)
        # Not `like.new_zeros`: a sharded weight would give a sharded cache.
        self._layers = [
            torch.zeros((2, batch_size, size, *heads), device=like.device, dtype=like.dtype)
            for window in config.windows
            for size in (longest if window is None else min(window + 1, longest),)
        ]  # keys and values, (2, B, slots, H_kv, D) a layer

    @property
    def length(self) -> int:
        """Positions that the longest row has read."""
        return max(self.lengths)

    @property
    def is_even(self) -> bool:
        """Whether all rows have read equally many positions."""
        return min(self.lengths) == max(self.lengths)

    @property
    def is_inside(self) -> bool:
        """Whether the next position of every row is inside the context."""
        return self.length < self._context_length

    def next_places(self, num_new: int) -> slice | Tensor:
        """Return the next positions of the rows: a slice for all, or one a row, (B, 1).

        Positions beyond the context are float64, for which `RotaryPositions` computes the angles.
        """
        end = self.length + num_new
        is_inside = end <= self._context_length
        if self._places is not None:
            return self._places[:, None] if is_inside else self._places[:, None].double()
        if self.is_even:
            places = slice(self.length, end)
            return places if is_inside else torch.arange(self.length, end, dtype=torch.float64)
        dtype = torch.int64 if is_inside else torch.float64
        return torch.tensor(self.lengths, dtype=dtype)[:, None]

    def append(
        self, layer: int, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Store keys and values of T new positions, (B, T, H_kv, D); return all that these may see.

        Returns:
            Keys and values, (B, S, H_kv, D), and which of them exist, bool (B, S); `None` means
            all. With T > 1 they are in order, and the new ones are the last; with T = 1 their order
            is arbitrary, and the new position sees all of them.
        """
        slots, new, exist = self._layers[layer], torch.stack((keys, values)), None
        size, num_new, places = slots.shape[2], keys.shape[1], self._places
        seen = slots if places is not None else slots[:, :, : self.length + 1]
        if places is None and not self.is_even:
            places = torch.tensor(self.lengths, device=slots.device)
        if places is not None:
            slots[:, torch.arange(len(places), device=slots.device), places % size] = new[:, :, 0]
            exist = torch.arange(seen.shape[2], device=slots.device) <= places[:, None]
        elif num_new == 1:
            slots[:, :, self.length % size] = new[:, :, 0]
        else:
            begin, end = self.length, self.length + num_new
            before = torch.arange(max(0, begin - size + 1), begin, device=slots.device) % size
            seen = torch.cat((slots[:, :, before].type_as(new), new), dim=2)
            kept = torch.arange(max(begin, end - size), end, device=slots.device) % size
            slots[:, :, kept] = new[:, :, -len(kept) :].type_as(slots)
        # Under autocast, the queries have another dtype than the cache.
        all_keys, all_values = seen.type_as(keys)
        return all_keys, all_values, exist

    def advance(self, num_new: int) -> None:
        """Count `num_new` positions as read, after every layer has appended them."""
        self.lengths = [length + num_new for length in self.lengths]

    def rows(self, begin: int, end: int) -> "KVCache":
        """Return a cache of the rows `begin` to `end`, which shares memory with this one.

        Its `lengths` are a copy: advancing it does not advance this cache. Steps of rows from 0 on
        are compiled only: a CUDA graph keeps the addresses of the rows that it was recorded with.
        """
        view = copy.copy(self)
        view.use_compile = self.use_compile and begin == 0
        view.lengths = self.lengths[begin:end]
        view._layers = [slots[:, begin:end] for slots in self._layers]
        return view

    def for_one_step(self) -> "KVCache":
        """Return a view that takes one position a row, whose shapes do not grow with the texts.

        A step that is compiled for it serves all later steps: it reads all slots, and a mask says
        which of them exist. Its lengths are no list that a compiled function would depend on.
        """
        view = copy.copy(self)
        view._places = torch.tensor(self.lengths, device=self._layers[0].device)
        view.lengths = [0 if self.is_inside else self._context_length]
        view.graphs = {}  # no cycle, so that the memory of a graph is freed at once
        return view

    def renew_step(self, view: "KVCache") -> None:
        """Make an older view for one step that of the next one, without changing an address."""
        assert view._places is not None
        view._places.copy_(torch.tensor(self.lengths))
        view.lengths = [0 if self.is_inside else self._context_length]

    def move(self, source: int, target: int) -> None:
        """Copy a row over another one."""
        self.lengths[target] = self.lengths[source]
        for slots in self._layers:
            slots[:, target] = slots[:, source]

    def clear(self, row: int) -> None:
        """Overwrite a row with zeros: a NaN that stays in it would spread to its next text."""
        self.lengths[row] = 0
        for slots in self._layers:
            slots[:, row] = 0

    def keep(self, length: int) -> bool:
        """Forget all but the first `length` positions; return false if some are overwritten.

        A ring has one position more than a new one sees, so the newest position can always be
        forgotten.
        """
        smallest = min(slots.shape[2] for slots in self._layers)
        if length < self.length - 1 and self.length > smallest:
            return False
        self.lengths = [min(length, old) for old in self.lengths]
        return True
