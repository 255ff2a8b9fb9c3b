"""An API compatible with OpenAI's for one model.

https://platform.openai.com/docs/api-reference. Requests that arrive together are generated as one
batch, and a client that disconnects frees its rows. `/tokenize`, `/detokenize` and
`/tokenizer_info` follow vLLM (https://docs.vllm.ai), because `lm_eval` calls them.
"""

import contextlib
import json
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from dimgpt.config import SamplingConfig
from dimgpt.data.conversation import encode_prompt
from dimgpt.generation.generator import new_cache
from dimgpt.model.transformer import Transformer
from dimgpt.serving import requests
from dimgpt.serving.answers import Kind, Names, Piece
from dimgpt.serving.engine_thread import EngineThread
from dimgpt.serving.errors import answer_error, error_body, json_response
from dimgpt.serving.jobs import Job, Prompt, write_pieces
from dimgpt.serving.limits import BodyLimit, allowed_hosts
from dimgpt.settings import nearest, override
from dimgpt.text.tokenizer import Tokenizer

_PIECES_BETWEEN_LOOKS = 8  # between checks whether the client has disconnected


def create_app(
    name: str,
    model: Transformer,
    tokenizer: Tokenizer,
    sampling: SamplingConfig,
    *,
    host: str = "127.0.0.1",
    api_key: str | None = None,
    max_batch: int = 32,
) -> FastAPI:
    """Return the application; while it runs, it owns the engine's thread.

    Args:
        name: Name of the model, which clients send as `model`.
        model: On its device, in evaluation mode.
        tokenizer: Belongs to the model.
        sampling: Defaults for the settings that a request leaves out.
        host: Address that the server will listen at; see `allowed_hosts`.
        api_key: Key that clients must send; `None` asks for no key.
        max_batch: Number of texts that are generated at the same time.
    """
    api = _Api(name, model, tokenizer, sampling, max_batch)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        api.start()
        yield
        api.engine.close()

    def authorise(request: Request) -> None:
        header = request.headers.get("authorization", "")
        given = header.removeprefix("Bearer ").encode("latin-1")  # the bytes of the header
        if api_key is not None and not secrets.compare_digest(given, api_key.encode()):
            raise HTTPException(401, "the API key is missing or wrong: send it as a bearer token")

    # FastAPI's own pages load scripts from other servers.
    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    for path, method, action in api.routes():
        app.add_api_route(path, action, methods=[method], dependencies=[Depends(authorise)])
    app.add_middleware(BodyLimit)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=allowed_hosts(host))
    for kind in (HTTPException, RequestValidationError, ValueError, RuntimeError):
        app.add_exception_handler(kind, answer_error)
    return app


class _Api:
    """The endpoints."""

    def __init__(
        self,
        name: str,
        model: Transformer,
        tokenizer: Tokenizer,
        sampling: SamplingConfig,
        max_batch: int,
    ) -> None:
        self._name, self._model, self._tokenizer = name, model, tokenizer
        if sampling.beyond_context is None and model.config.can_run_on:
            sampling = override(sampling, beyond_context="run_on")
        self._sampling, self._max_batch = sampling, max_batch
        self._created = int(time.time())
        self.engine: EngineThread

    def start(self) -> None:
        """Start the engine's thread."""
        cache = new_cache(self._model, self._max_batch, self._sampling)
        self.engine = EngineThread(self._model, self._tokenizer.special_tokens, cache=cache)

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        """Return path, method and action of each endpoint."""
        return [
            ("/v1/models", "GET", self.models),
            ("/v1/completions", "POST", self.complete),
            ("/v1/chat/completions", "POST", self.chat),
            ("/tokenizer_info", "GET", self.tokenizer_info),
            ("/tokenize", "POST", self.tokenize),
            ("/detokenize", "POST", self.detokenize),
        ]

    async def models(self) -> dict[str, Any]:
        """List the model."""
        row = {"id": self._name, "object": "model", "created": self._created, "owned_by": "dimgpt"}
        return {"object": "list", "data": [row]}

    async def complete(self, body: requests.CompletionRequest, request: Request) -> Response:
        """Continue texts."""
        return await self._answer(
            body,
            request,
            kind="text",
            prompts=[self._prompt(each) for each in body.prompts],
            max_tokens=body.max_tokens,
            num_scored=body.logprobs,
            echo=body.echo,
        )

    async def chat(self, body: requests.ChatRequest, request: Request) -> Response:
        """Answer a conversation."""
        ids = encode_prompt([each.message for each in body.messages], self._tokenizer)
        asked = body.max_completion_tokens
        return await self._answer(
            body,
            request,
            kind="chat",
            prompts=[Prompt(ids, "", len(ids))],
            max_tokens=body.max_tokens if asked is None else asked,
            num_scored=body.top_logprobs if body.logprobs else None,
        )

    def _prompt(self, given: str | list[int]) -> Prompt:
        if isinstance(given, list) and given:
            self._require_ids(given)
            return Prompt(given, self._tokenizer.decode(given), 0)
        text = given if isinstance(given, str) else ""
        ids = self._tokenizer.encode_beginning(text)
        has_start = ids[:1] == [self._tokenizer.special_tokens.start_of_text]
        return Prompt(ids, text, int(has_start))

    async def _answer(
        self,
        body: requests.Request,
        request: Request,
        *,
        kind: Kind,
        prompts: list[Prompt],
        max_tokens: int | None,
        num_scored: int | None,
        echo: bool = False,
    ) -> Response:
        """Check a request, then return the complete answer or a stream."""
        if body.model != self._name:
            hint = nearest(body.model, [self._name])
            raise HTTPException(404, f"no model {body.model!r}{hint}: it is {self._name!r}")
        limit = self._model.config.context_length
        if (longest := max(len(prompt.ids) for prompt in prompts)) > limit:
            raise HTTPException(
                400,
                f"the prompt has {longest} tokens, the context of the model {limit}: shorten it",
            )
        num_tokens = self._sampling.max_new_tokens if max_tokens is None else max_tokens
        if self._sampling.beyond_context != "run_on":  # + 1: the model does not read the last one
            num_tokens = min(num_tokens, limit + 1 - longest)
        job = Job(
            kind=kind,
            prompts=prompts,
            config=body.sampling(self._sampling, num_tokens),
            stops=self._tokenizer.stops if kind == "chat" else (),
            num_tokens=num_tokens,
            num_scored=num_scored,
            echo=echo,
            n=body.n,
        )
        self.engine.require_room(job.num_choices)
        if body.stream:
            options = body.stream_options
            events = self._events(job, has_usage=options is not None and options.include_usage)
            return StreamingResponse(events, media_type="text/event-stream")
        return json_response(await self._whole(job, request))

    async def _whole(self, job: Job, request: Request) -> dict[str, Any]:
        pieces = [Piece(index, "", [], None) for index in range(job.num_choices)]
        num_pieces = 0
        async with contextlib.aclosing(write_pieces(self.engine, self._tokenizer, job)) as stream:
            async for piece in stream:
                old, num_pieces = pieces[piece.choice], num_pieces + 1
                text, tokens = old.text + piece.text, old.tokens + piece.tokens
                pieces[piece.choice] = Piece(piece.choice, text, tokens, piece.end)
                if num_pieces % _PIECES_BETWEEN_LOOKS == 0 and await request.is_disconnected():
                    return {}
        names, has_scores = Names(self._tokenizer, job.kind), job.num_scored is not None
        choices = [names.choice(each, is_chunk=False, has_scores=has_scores) for each in pieces]
        usage = job.usage(sum(len(each.tokens) for each in pieces))
        return self._head(job, is_chunk=False) | {"choices": choices, "usage": usage}

    async def _events(self, job: Job, *, has_usage: bool) -> AsyncIterator[str]:
        """Yield server-sent events, https://html.spec.whatwg.org/multipage/server-sent-events.html.

        The HTTP status is sent before the first event, so an error becomes an event.
        """
        names, head = Names(self._tokenizer, job.kind), self._head(job, is_chunk=True)
        offsets, num_tokens, has_scores = [0] * job.num_choices, 0, job.num_scored is not None
        async with contextlib.aclosing(write_pieces(self.engine, self._tokenizer, job)) as stream:
            try:
                async for piece in stream:
                    offset = offsets[piece.choice]
                    row = names.choice(piece, is_chunk=True, has_scores=has_scores, offset=offset)
                    offsets[piece.choice] += len(piece.text)
                    num_tokens += len(piece.tokens)
                    yield _event(head | {"choices": [row]})
            except RuntimeError as error:
                yield _event(error_body(500, str(error)))
                return
        if has_usage:
            yield _event(head | {"choices": [], "usage": job.usage(num_tokens)})
        yield "data: [DONE]\n\n"

    def _head(self, job: Job, *, is_chunk: bool) -> dict[str, Any]:
        """Return the fields that all answers share."""
        prefix, name = {
            "text": ("cmpl", "text_completion"),
            "chat": ("chatcmpl", "chat.completion"),
        }[job.kind]
        return {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": name + (".chunk" if is_chunk and job.kind == "chat" else ""),
            "created": int(time.time()),
            "model": self._name,
        }

    async def tokenizer_info(self) -> dict[str, Any]:
        """Name the special tokens that begin and end a text."""
        special, tokens = self._tokenizer.special_tokens, self._tokenizer.tokens
        end, start = tokens[special.end_of_text], special.start_of_text
        beginning = end if start is None else tokens[start]
        return {"bos_token": beginning, "eos_token": end, "pad_token": end}

    async def tokenize(self, body: requests.TokenizeRequest) -> dict[str, Any]:
        """Turn text into ids; a text that is a name from `tokenizer_info` becomes its id."""
        tokenizer, prompt = self._tokenizer, body.prompt
        if prompt in (await self.tokenizer_info()).values():
            ids = [tokenizer.special_ids[prompt]]
        elif body.add_special_tokens:
            ids = tokenizer.encode_beginning(prompt)
        else:
            ids = tokenizer.encode(prompt)
        return {
            "tokens": ids,
            "count": len(ids),
            "max_model_len": self._model.config.context_length,
        }

    async def detokenize(self, body: requests.DetokenizeRequest) -> dict[str, Any]:
        """Turn ids into text."""
        self._require_ids(body.tokens)
        return {"prompt": self._tokenizer.decode(body.tokens)}

    def _require_ids(self, ids: Sequence[int]) -> None:
        size = self._model.config.vocab_size
        for position, id in enumerate(ids):
            if not 0 <= id < size:
                raise ValueError(f"id {id} at position {position}: ids are 0 to {size - 1}")


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"
