"""Keys and values of the positions already computed, so that generation computes each once.

Room for a whole context is taken at the start. Positions never move: a sequence that outgrows the
context is the generator's business.
"""

import torch
from torch import Tensor


class KVCache:
    """Keys and values of all layers, (B, num_positions, H_kv, D) each."""

    def __init__(
        self,
        *,
        num_layers: int,
        batch_size: int,
        num_positions: int,
        num_kv_heads: int,
        head_dim: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        shape = (num_layers, batch_size, num_positions, num_kv_heads, head_dim)
        self._keys = torch.zeros(shape, device=device, dtype=dtype)
        self._values = torch.zeros(shape, device=device, dtype=dtype)
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
