"""The "logit lens": the next token after each layer, if the model ended there.

nostalgebraist 2020,
https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dimgpt.inspection.tokens import Guess, as_batch, top_guesses
from dimgpt.model.transformer import Transformer


@torch.inference_mode()
def layer_guesses(
    model: Transformer, ids: Sequence[int], *, count: int = 3
) -> list[list[tuple[Guess, ...]]]:
    """Apply the final norm and the output layer to the residual stream after every layer.

    Args:
        model: In evaluation mode.
        ids: At least one token, at most a context.
        count: Number of guesses per position, at most the size of the vocabulary.

    Returns:
        `[layer][position]`: the most probable next tokens, best first. Those of the last layer are
        the model's own.

    Raises:
        ValueError: There is no token, or the text exceeds the context.
    """
    streams: list[Tensor] = []

    def keep(_: nn.Module, __: Any, result: tuple[Tensor, Tensor | None]) -> None:
        streams.append(result[0][0])  # (T, C)

    hooks = [block.register_forward_hook(keep) for block in model.blocks]
    try:
        model.hidden_states(as_batch(model, ids))
    finally:
        for hook in hooks:
            hook.remove()
    logits = (model.logits(model.final_norm(stream)).float() for stream in streams)
    return [top_guesses(scores.softmax(dim=-1), count) for scores in logits]
