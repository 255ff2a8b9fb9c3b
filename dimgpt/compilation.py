"""`torch.compile`, with a one-line error if there is no compiler."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R], **options: Any) -> Callable[P, R]:
    """Return a function that is compiled at its first call; `options` go to `torch.compile`.

    Raises:
        RuntimeError: At the call, if there is no compiler.
    """
    from torch._dynamo.exc import BackendCompilerFailed  # importing it takes a second

    compute = torch.compile(function, **options)

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return compute(*args, **kwargs)
        except BackendCompilerFailed as error:
            reason = str(error).strip().splitlines()[0]
            raise RuntimeError(
                f"torch cannot compile the model here ({reason}): install a C++ compiler such as "
                "g++, or go on without (use_compile False)"
            ) from error

    return call
