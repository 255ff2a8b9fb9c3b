"""Finds tokens with similar embeddings."""

import torch
import torch.nn.functional as F

from dimgpt.inspection.tokens import Guess, top_guesses
from dimgpt.model.transformer import Transformer


@torch.inference_mode()
def nearest_tokens(model: Transformer, id: int, *, count: int = 10) -> list[Guess]:
    """Return the tokens whose embeddings have the most similar direction, nearest first.

    Args:
        model: The model with the embeddings.
        id: The token; it is not its own neighbour.
        count: Number of neighbours, at most all other tokens.

    Returns:
        Tokens; their `ratio` is the cosine, in -1..1.

    Raises:
        ValueError: The vocabulary has no such id.
    """
    table = model.token_embedding.weight.detach().float()  # (V, C)
    if not 0 <= id < len(table):
        raise ValueError(f"id is {id}: the vocabulary has ids from 0 to {len(table) - 1}")
    cosines = F.cosine_similarity(table[id], table, dim=-1)
    return [guess for guess in top_guesses(cosines[None], count + 1)[0] if guess.id != id][:count]
