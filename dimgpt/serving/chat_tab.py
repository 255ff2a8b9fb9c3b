"""The page's first tab: questions to one model, or to two side by side.

The messages in the browser are the conversation: to retry or to edit, they are cut off and asked
again. The session of a model only keeps the cache of the tokens that the model has read.
"""

import contextlib
import html
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from dimgpt.config import SamplingConfig
from dimgpt.data.conversation import Message
from dimgpt.presets import Preset
from dimgpt.serving.model_shelf import ModelShelf, ask_all
from dimgpt.serving.page_texts import I18N, messages_for

MAX_CHARACTERS = 20_000  # of a text that a person writes
_MAX_NEW_TOKENS = 1_024
_SECONDS = 120.0  # for an answer
_TOP_K = 200

# Errors that a person's input can cause: the page shows them. Others appear in the terminal.
REFUSALS = (ValueError, OSError, ArithmeticError, RuntimeError)
History = list[Any]
"""Messages as gradio has them: dicts with `role` and `content`."""
Update = tuple[Any, ...]


class ChatTab:
    """Builds the widgets of the tab and handles their events."""

    def __init__(
        self, shelf: ModelShelf, preset: Preset, sampling: SamplingConfig, first: str | None
    ) -> None:
        self._shelf = shelf
        self._sampling = sampling
        self._first = first
        with gr.Row():
            choices, others = self._choices()
            self.model = gr.Dropdown(label=I18N("model"), info=I18N("model_info"), **choices)
            self.other = gr.Dropdown(label=I18N("other"), info=I18N("other_info"), **others)
        with gr.Row():
            self.left = _chatbot("conversation", preset.questions)
            self.right = _chatbot("second_conversation", (), is_visible=False)
        self.box = gr.Textbox(
            label=I18N("question"),
            placeholder=I18N("question_hint"),
            max_lines=8,
            max_length=MAX_CHARACTERS,
            submit_btn=True,
            autofocus=True,
            elem_id="question",
        )
        with gr.Accordion(I18N("settings"), open=False):
            self.system = gr.Textbox(
                preset.system_prompt or "",
                label=I18N("system"),
                info=I18N("system_info"),
                max_length=MAX_CHARACTERS,
            )
            self.sliders = _sliders(sampling)

    def connect(self, page: gr.Blocks) -> None:
        """Connect the widgets' events to their handlers."""
        chats = [self.left, self.right]
        inputs = [*chats, self.model, self.other, self.system, *self.sliders]
        options: dict[str, Any] = {
            "outputs": [self.box, *chats],
            "show_progress": "hidden",
            "concurrency_id": "model",
            "api_visibility": "private",
        }
        at_once: dict[str, Any] = {"queue": False, "api_visibility": "private"}
        running: list[Any] = [self.box.submit(self._ask, [self.box, *inputs], **options)]
        running.append(self.left.example_select(self._ask_example, inputs, **options))
        for chat in chats:
            running.append(chat.retry(self._retry, inputs, **options))
            running.append(chat.edit(self._edit, inputs, **options))
            chat.clear(lambda: ([], []), None, chats, **at_once)
        for event in running:  # also after an error
            event.then(lambda: _box(is_running=False), None, self.box, **at_once)
        self.box.stop(lambda: _box(is_running=False), None, self.box, cancels=running, **at_once)
        self.other.change(
            lambda name, left: gr.Chatbot(visible=bool(name), value=_shown(messages_of(left))),
            [self.other, self.left],
            self.right,
            **at_once,
        )
        page.load(
            lambda: [gr.Dropdown(**choices) for choices in self._choices()],
            None,
            [self.model, self.other],
            show_progress="hidden",
            **at_once,
        )

    def _choices(self) -> list[dict[str, Any]]:
        """Return the choices and the initial value of both lists of models."""
        names = self._shelf.names()
        first = self._first if self._first in names else next(iter(names), None)
        none: list[str | tuple[str, str]] = [("—", "")]
        return [{"choices": names, "value": first}, {"choices": none + names, "value": ""}]

    def _ask(self, question: str, request: gr.Request, *rest: Any) -> Iterator[Update]:
        yield from self._answer(question, None, request, *rest)

    def _ask_example(
        self, chosen: gr.SelectData, request: gr.Request, *rest: Any
    ) -> Iterator[Update]:
        yield from self._answer(chosen.value["text"], None, request, *rest)

    def _retry(self, chosen: gr.RetryData, request: gr.Request, *rest: Any) -> Iterator[Update]:
        yield from self._answer(plain_text(chosen.value), chosen.index, request, *rest)

    def _edit(self, chosen: gr.EditData, request: gr.Request, *rest: Any) -> Iterator[Update]:
        yield from self._answer(plain_text(chosen.value), chosen.index, request, *rest)

    def _answer(
        self,
        question: str,
        place: Any,
        request: gr.Request,
        left: History,
        right: History,
        model: str,
        other: str,
        system: str,
        *values: float,
    ) -> Iterator[Update]:
        """Yield updates of the box and of both conversations while the answer grows.

        The question replaces the message at `place` and all later ones; `None` appends it.
        """
        say = messages_for(request)
        with shown_errors():
            for text in (question, system):
                if len(text) > MAX_CHARACTERS:
                    raise ValueError(say("too_long", length=len(text), limit=MAX_CHARACTERS))
            if not question.strip():
                raise ValueError(say("empty"))
            config = _config(self._sampling, *values)
            sides = [(model, left), (other, right)][: 2 if other else 1]
            said = [messages_of(history)[:place] for _, history in sides]
            sessions = []
            for number, ((name, _), messages) in enumerate(zip(sides, said, strict=True)):
                key = (request.session_hash, number)
                session = self._shelf.session(key, name, config, system or None)
                session.restore(messages)
                sessions.append(session)
            box = _box(is_running=True)
            for answers, is_late in ask_all(sessions, question, seconds=_SECONDS):
                yield (
                    box,
                    *(
                        _shown([*messages, _user(question), Message(role="assistant", text=answer)])
                        for messages, answer in zip(said, answers, strict=True)
                    ),
                    *[gr.skip()] * (2 - len(said)),
                )
                box = gr.skip()
                if is_late:
                    gr.Warning(say("late", seconds=_SECONDS))


def messages_of(history: History) -> list[Message]:
    """Return the messages of a chatbot."""
    return [Message(role=str(said["role"]), text=plain_text(said["content"])) for said in history]


def plain_text(content: Any) -> str:
    """Return the text of a message's content, unescaped; parts without text are skipped."""
    if isinstance(content, str):
        return html.unescape(content)
    parts = content if isinstance(content, list) else [content]
    texts = (str(part.get("text", "")) for part in parts if isinstance(part, dict))
    return html.unescape("".join(texts))


@contextlib.contextmanager
def shown_errors() -> Iterator[None]:
    """Show errors of `REFUSALS` on the page, escaped because it reads messages as HTML."""
    try:
        yield
    except REFUSALS as error:
        gr.Warning(html.escape(" ".join(str(error).split())))


def _user(text: str) -> Message:
    return Message(role="user", text=text)


def _shown(messages: Sequence[Message]) -> History:
    # A chatbot reads its messages as HTML and removes tags that it does not trust.
    return [
        {"role": message.role, "content": html.escape(message.text, quote=False)}
        for message in messages
    ]


def _box(*, is_running: bool) -> gr.Textbox:
    """Return the question box: empty with a stop button while an answer runs, else ready."""
    if is_running:
        return gr.Textbox(value="", submit_btn=False, stop_btn=True)
    return gr.Textbox(submit_btn=True, stop_btn=False)


def _chatbot(label: str, questions: Sequence[str], *, is_visible: bool = True) -> gr.Chatbot:
    return gr.Chatbot(
        label=I18N(label),
        visible=is_visible,
        examples=[{"text": question} for question in questions] or None,
        editable="user",
        height="55vh",
        buttons=["copy", "copy_all"],
        render_markdown=False,
        sanitize_html=True,
        allow_tags=False,
        latex_delimiters=[],
        allow_file_downloads=False,
        feedback_options=None,
        elem_id=label,
    )


def _sliders(sampling: SamplingConfig) -> list[gr.Slider]:
    """Return a slider for each value that `_config` takes, in its order."""
    length = min(sampling.max_new_tokens, _MAX_NEW_TOKENS)
    ranges = {
        "temperature": (0, 2, 0.05, sampling.temperature),
        "top_p": (0, 1, 0.01, sampling.top_p),
        "top_k": (0, _TOP_K, 1, sampling.top_k or 0),
        "no_repeat": (0, 2, 0.05, sampling.no_repeat_strength),
        "repetition": (1, 2, 0.05, sampling.repetition_penalty),
        "length": (1, _MAX_NEW_TOKENS, 1, length),
    }
    return [
        gr.Slider(low, high, value, step=step, label=I18N(name), info=I18N(f"{name}_info"))
        for name, (low, high, step, value) in ranges.items()
    ]


def _config(
    sampling: SamplingConfig,
    temperature: float,
    top_p: float,
    top_k: float,
    no_repeat: float,
    repetition: float,
    length: float,
) -> SamplingConfig:
    return replace(
        sampling,
        temperature=float(temperature),
        top_p=float(top_p),
        top_k=int(top_k) or None,
        no_repeat_strength=float(no_repeat),
        repetition_penalty=float(repetition),
        max_new_tokens=min(int(length), _MAX_NEW_TOKENS),
    )
