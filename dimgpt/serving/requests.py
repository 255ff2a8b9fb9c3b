"""The requests of OpenAI's API that a plain language model can answer.

https://platform.openai.com/docs/api-reference. A request with an unknown field is refused, so that
nobody believes the field had an effect. The fields in the second half of `Request` are dimgpt's.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dimgpt.config import SamplingConfig
from dimgpt.data.conversation import Message
from dimgpt.settings import override

_MAX_TOKENS = 32_768
_MAX_CHOICES = 64
Count = Annotated[int, Field(ge=0, le=_MAX_TOKENS)]
Ids = list[int]


class StreamOptions(BaseModel):
    """Options of a stream."""

    include_usage: bool = False


class Request(BaseModel):
    """Fields that all requests share; `None` takes the server's own setting."""

    model_config = ConfigDict(extra="forbid")

    model: str
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    n: Annotated[int, Field(ge=1, le=_MAX_CHOICES)] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None
    """Accepted, and has no effect."""
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None

    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    no_repeat_strength: float | None = None

    def sampling(self, usual: SamplingConfig, max_tokens: int) -> SamplingConfig:
        """Return the server's settings `usual`, changed by the values of this request.

        Raises:
            ValueError: A value breaks its field's rule.
        """
        stops = (self.stop,) if isinstance(self.stop, str) else self.stop
        names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        given: dict[str, Any] = {name: getattr(self, name) for name in names}
        return override(
            usual,
            **given,
            no_repeat_strength=self.no_repeat_strength,
            # A torch generator takes seeds of 64 bits that are not negative.
            seed=None if self.seed is None else self.seed % 2**64,
            max_new_tokens=max(1, max_tokens),
            stop_strings=None if stops is None else tuple(stops),
        )


class CompletionRequest(Request):
    """Body of `/v1/completions`."""

    prompt: str | Ids | Annotated[list[str] | list[Ids], Field(max_length=_MAX_CHOICES)] = ""
    max_tokens: Count | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool = False
    best_of: Literal[1] | None = None

    @property
    def prompts(self) -> list[Any]:
        """The prompts as a list, each a text or a list of ids."""
        is_one = isinstance(self.prompt, str) or all(isinstance(part, int) for part in self.prompt)
        return [self.prompt] if is_one else list(self.prompt)


class TextPart(BaseModel):
    """A part of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """A message as clients send it; fields like `name` are ignored."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def message(self) -> Message:
        """The message; the role `developer` becomes `system`."""
        role = "system" if self.role == "developer" else self.role
        if isinstance(self.content, str):
            return Message(role=role, text=self.content)
        return Message(role=role, text="".join(part.text for part in self.content))


class ChatRequest(Request):
    """Body of `/v1/chat/completions`."""

    messages: list[ChatMessage]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0


class TokenizeRequest(BaseModel):
    """Body of `/tokenize`."""

    prompt: str
    add_special_tokens: bool = True
    """Begin with ⮜start-of-text⮞, as a prompt does."""


class DetokenizeRequest(BaseModel):
    """Body of `/detokenize`."""

    tokens: Ids
