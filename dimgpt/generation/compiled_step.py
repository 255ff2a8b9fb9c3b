"""The forward pass of one token a row, compiled; on a GPU its kernels start with a single launch.

A small model computes faster than Python launches its kernels. A CUDA graph records the launches of
one step, and repeats them with the same addresses for inputs, cache and result.
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from dimgpt.compilation import compiled
from dimgpt.model.cache import KVCache
from dimgpt.model.transformer import Transformer

_NUM_WARM_UPS = 3  # as many as torch's documentation runs before a recording


def logits_of_step(model: Transformer, ids: Tensor, cache: KVCache) -> Tensor:
    """Return the logits (B, V) after the next id of each row, (B, 1), and advance the cache.

    On a GPU the next call with as many rows overwrites them.
    """
    # Autocast keeps copies of weights, which a graph would read after they are freed.
    if ids.is_cuda and not torch.is_autocast_enabled("cuda"):
        graph = cache.graphs.get(_graph_key(cache))
        if graph is None:
            graph = cache.graphs[_graph_key(cache)] = _StepGraph(model, ids, cache)
        logits = graph.replay(ids, cache)
    else:
        logits = _compiled()(model, ids, cache.for_one_step())
    cache.advance(1)
    return logits


def last_logits(model: Transformer, ids: Tensor, cache: KVCache | None) -> Tensor:
    """Return the logits (B, V) after ids (B, T)."""
    # Only of the last position: logits of all positions of a batch may take gigabytes.
    return model.logits(model.hidden_states(ids, cache)[:, -1]).float()


class _StepGraph:
    """The recorded step of a cache, for one number of rows, inside the context or beyond it."""

    def __init__(self, model: Transformer, ids: Tensor, cache: KVCache) -> None:
        self._ids, self._view = ids.clone(), cache.for_one_step()
        self._graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(ids.device)
        stream.wait_stream(torch.cuda.current_stream(ids.device))
        with torch.cuda.stream(stream):  # compile and allocate before the recording
            for _ in range(_NUM_WARM_UPS):
                _compiled()(model, self._ids, self._view)
                cache.renew_step(self._view)
        torch.cuda.current_stream(ids.device).wait_stream(stream)
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._logits = _compiled()(model, self._ids, self._view)

    def replay(self, ids: Tensor, cache: KVCache) -> Tensor:
        """Return the logits (B, V) after ids (B, 1)."""
        self._ids.copy_(ids)
        cache.renew_step(self._view)
        self._graph.replay()
        return self._logits


def _graph_key(cache: KVCache) -> tuple[int, bool]:
    return len(cache.lengths), cache.is_inside


@functools.cache
def _compiled() -> Callable[[Transformer, Tensor, KVCache], Tensor]:
    return compiled(last_logits)
