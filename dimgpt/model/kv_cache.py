"""Keys and values of the positions already computed, so that generation computes each once.

Memory for a whole context is allocated at the start. Positions never move: the generator decides
what happens to a sequence that outgrows the context.
"""

import torch
from torch import Tensor

from dimgpt.config import ModelConfig


class KVCache:
    """Keys and values of all layers, (B, context_length, H_kv, D) each.

    Args:
        config: Shape of the model.
        batch_size: Sequences that are generated together.
        like: A weight of the model; gives device and dtype.
    """

    def __init__(self, config: ModelConfig, batch_size: int, *, like: Tensor) -> None:
        heads = (config.num_kv_heads, config.head_dim)
        shape = (config.num_layers, batch_size, config.context_length, *heads)
        # Not `like.new_zeros`: a sharded weight would give a sharded cache.
        self._keys = torch.zeros(shape, device=like.device, dtype=like.dtype)
        self._values = torch.zeros_like(self._keys)
        self.length = 0
        """Positions held; the transformer advances it once all its layers have appended."""

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, T, H_kv, D) after the positions held, and return all S = length + T of them."""
        end = self.length + keys.shape[1]
        self._keys[layer, :, self.length : end] = keys
        self._values[layer, :, self.length : end] = values
        # Back to the dtype of the queries: under autocast it is not the dtype of the cache.
        return (
            self._keys[layer, :, :end].type_as(keys),
            self._values[layer, :, :end].type_as(values),
        )
