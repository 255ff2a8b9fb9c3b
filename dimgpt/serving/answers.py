"""Turns the engine's steps into the `choices` of OpenAI's responses, complete or in chunks."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from dimgpt.generation.generator import GrowingText
from dimgpt.generation.scores import Score
from dimgpt.serving.engine_thread import Step
from dimgpt.text.tokenizer import Tokenizer

Kind = Literal["text", "chat"]
_MIN_LOG_PROBABILITY = -9999.0  # as in OpenAI's API: JSON has no infinity


class ScoredToken(NamedTuple):
    """A token and its score: `None` if no scores were asked for, and for a text's first token."""

    id: int
    score: Score | None


class Piece(NamedTuple):
    """New text of a choice, and its tokens."""

    choice: int
    """Number of the choice."""
    text: str
    tokens: list[ScoredToken]
    end: str | None
    """Why the choice ended: "stop" or "length"; `None` if more pieces follow."""


class Choice:
    """One choice: collects tokens until there is text to show."""

    def __init__(self, number: int, tokenizer: Tokenizer, stop_strings: Sequence[str]) -> None:
        self._number, self._text = number, GrowingText(tokenizer, stop_strings)
        self._tokens: list[ScoredToken] = []
        self.num_tokens = 0

    def take(self, step: Step) -> Piece | None:
        """Add a step; return the next piece, or `None` while there is no text to show."""
        text = ""
        if step.id is not None:
            self._tokens.append(ScoredToken(step.id, step.score))
            self.num_tokens += 1
            text = self._text.add(step.id)
        end = "stop" if self._text.has_stopped else step.end
        if end is not None:
            text += self._text.finish()
        if not text and end is None:
            return None
        tokens, self._tokens = self._tokens, []
        return Piece(self._number, text, tokens, end)


class Names:
    """Formats choices, tokens and log-probabilities for completions or for chats."""

    def __init__(self, tokenizer: Tokenizer, kind: Kind) -> None:
        self._tokenizer, self._kind = tokenizer, kind

    def choice(
        self, piece: Piece, *, is_chunk: bool, has_scores: bool, offset: int = 0
    ) -> dict[str, Any]:
        """Return one entry of `choices`.

        Args:
            piece: The text and tokens of the entry.
            is_chunk: It belongs to a stream: a chat then calls the message `delta`.
            has_scores: Include log-probabilities.
            offset: Number of characters that the choice has before the piece.
        """
        row: dict[str, Any] = {"index": piece.choice, "finish_reason": piece.end, "logprobs": None}
        if self._kind == "text":
            row["text"] = piece.text
        else:
            role = {"role": "assistant"} if offset == 0 else {}
            row["delta" if is_chunk else "message"] = role | {"content": piece.text}
        if has_scores:
            row["logprobs"] = (
                self._columns(piece.tokens, offset)
                if self._kind == "text"
                else {"content": [self._entry(token) for token in piece.tokens]}
            )
        return row

    def _columns(self, tokens: Sequence[ScoredToken], offset: int) -> dict[str, Any]:
        names = [self._tokenizer.token_text(token.id) for token in tokens]
        offsets = [offset]
        for name in names:
            offsets.append(offsets[-1] + len(name))
        return {
            "tokens": names,
            "token_logprobs": [
                None if token.score is None else _finite(token.score.log_probability)
                for token in tokens
            ],
            "top_logprobs": [
                None if token.score is None else self._alternatives(token.id, token.score)
                for token in tokens
            ],
            "text_offset": offsets[:-1],
        }

    def _alternatives(self, chosen: int, score: Score) -> dict[str, float]:
        # The least probable first: a more probable token with the same text then replaces it.
        rows = [(chosen, score.log_probability), *reversed(score.alternatives.items())]
        return {self._tokenizer.token_text(id): _finite(value) for id, value in rows}

    def _entry(self, token: ScoredToken) -> dict[str, Any]:
        score = token.score or Score(log_probability=-math.inf, alternatives={})
        rows = score.alternatives.items()
        return self._named(token.id, score.log_probability) | {
            "top_logprobs": [self._named(id, value) for id, value in rows]
        }

    def _named(self, id: int, log_probability: float) -> dict[str, Any]:
        return {
            "token": self._tokenizer.token_text(id),
            "logprob": _finite(log_probability),
            "bytes": list(self._tokenizer.token_bytes(id)),
        }


def _finite(value: float) -> float:
    return max(value, _MIN_LOG_PROBABILITY)
