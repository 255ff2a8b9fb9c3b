"""The keys and values of the positions that a model has read: each is computed once."""

import torch
from torch import Tensor

from dimgpt.config import ModelConfig


class KVCache:
    """Keys and values of all layers, allocated at the start.

    A layer with a window of W tokens keeps a ring of W + 1 positions: position p lies in slot
    p % (W + 1), where it replaces the first one that no query sees any more. Keys carry their
    rotation, so their order in the ring plays no part. Other layers keep a whole context.

    Args:
        config: Shape of the model.
        batch_size: B, sequences that are generated together.
        like: A weight of the model; gives device and dtype.
        runs_on: Take more than `context_length` positions.

    Raises:
        ValueError: `runs_on`, and some layer would have to see more than a context.
    """

    def __init__(
        self, config: ModelConfig, batch_size: int, *, like: Tensor, runs_on: bool = False
    ) -> None:
        if runs_on and not config.can_run_on:
            raise ValueError(
                "beyond_context is 'run_on': that takes rotary positions, and in every layer a "
                "window that is shorter than the context; this model takes 'crop'"
            )
        self.runs_on = runs_on
        self.length = 0
        """Positions read; the transformer advances it once all its layers have appended."""
        longest, heads = config.context_length, (config.num_kv_heads, config.head_dim)
        # Not `like.new_zeros`: a sharded weight would give a sharded cache.
        self._layers = [
            torch.zeros((2, batch_size, size, *heads), device=like.device, dtype=like.dtype)
            for window in config.windows
            for size in (longest if window is None else min(window + 1, longest),)
        ]  # keys and values, (2, B, slots, H_kv, D) a layer

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store those of T new positions, (B, T, H_kv, D), and return all that these may see.

        Returns:
            Keys and values, (B, S, H_kv, D). With T > 1 they are in order, and the new ones are the
            last; with T = 1 the new position sees all of them, in whatever order.
        """
        slots, new = self._layers[layer], torch.stack((keys, values))
        size, num_new = slots.shape[2], keys.shape[1]
        if num_new == 1:
            slots[:, :, self.length % size] = new[:, :, 0]
            seen = slots[:, :, : self.length + 1]
        else:
            begin, end = self.length, self.length + num_new
            before = torch.arange(max(0, begin - size + 1), begin, device=slots.device) % size
            seen = torch.cat((slots[:, :, before].type_as(new), new), dim=2)
            kept = torch.arange(max(begin, end - size), end, device=slots.device) % size
            slots[:, :, kept] = new[:, :, -len(kept) :].type_as(slots)
        # Back to the dtype of the queries: under autocast it is not the dtype of the cache.
        all_keys, all_values = seen.type_as(keys)
        return all_keys, all_values

    def keep(self, length: int) -> bool:
        """Forget all but the first `length` positions; false if a ring has replaced some of them.

        A ring has one position more than the next one sees: the newest can always be forgotten.
        """
        smallest = min(slots.shape[2] for slots in self._layers)
        if length < self.length - 1 and self.length > smallest:
            return False
        self.length = min(length, self.length)
        return True
