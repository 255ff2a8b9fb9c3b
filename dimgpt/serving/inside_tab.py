"""The page's second tab: token probabilities, attention, and passages that were memorised.

Shows a text, or the last answer of the first tab, as the model of the first tab sees it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gradio as gr
from matplotlib.figure import Figure

from dimgpt.data.conversation import Message, encode_message, encode_prompt
from dimgpt.display.attention_plots import plot_attention
from dimgpt.inspection.attention import attention_weights
from dimgpt.inspection.layers import layer_guesses
from dimgpt.inspection.passages import PassageIndex
from dimgpt.inspection.tokens import Guess, SeenToken, look_at_tokens
from dimgpt.serving.chat_tab import MAX_CHARACTERS, ChatTab, History, messages_of, shown_errors
from dimgpt.serving.model_shelf import ModelShelf, OpenedModel
from dimgpt.serving.page_texts import I18N, messages_for
from dimgpt.text.tokenizer import Tokenizer

_MAX_TOKENS = 256  # the weights of all heads are in memory at once
_LEAST_PASSAGE = 8
# Label -> the least probability of a token with this label, and its colour.
_SHADES = {"≥ 50 %": (0.5, "#cfe8cf"), "≥ 10 %": (0.1, "#f2ecb8"), "≥ 1 %": (0.01, "#f4cf9f")}
_RARE = ("< 1 %", "#eda7a0")


Passages = Callable[[str, Tokenizer], list[PassageIndex]]
"""(name of a model, its tokenizer) -> the indexes of its training files that are on this disk."""


class Looked(NamedTuple):
    """The text that the tab shows, and the chosen token."""

    model: str
    ids: list[int]
    place: int
    """Number of the token that was clicked."""


class InsideTab:
    """Builds the widgets of the tab and handles their events."""

    def __init__(self, shelf: ModelShelf, passages: Passages, chat: ChatTab) -> None:
        self._shelf, self._open_passages, self._chat = shelf, passages, chat
        self.looked = gr.State(None)
        self.text = gr.Textbox(
            label=I18N("text"),
            placeholder=I18N("text_hint"),
            lines=2,
            max_lines=8,
            max_length=MAX_CHARACTERS,
            elem_id="text",
        )
        with gr.Row():
            self.look_text = gr.Button(I18N("look_text"), variant="primary", elem_id="look-text")
            self.look_answer = gr.Button(I18N("look_answer"), elem_id="look-answer")
        colours = {name: colour for name, (_, colour) in _SHADES.items()} | dict([_RARE])
        self.tokens = gr.HighlightedText(
            label=I18N("tokens"),
            color_map=colours,
            show_legend=True,
            show_inline_category=False,
            elem_id="tokens",
        )
        with gr.Row():
            self.alternatives = _table("alternatives", elem_id="alternatives")
            self.layers = _table("layers", elem_id="layers")
        with gr.Row():
            self.layer = gr.Slider(0, 1, 0, step=1, label=I18N("layer"), info=I18N("layer_info"))
            self.head = gr.Slider(0, 1, 0, step=1, label=I18N("head"), info=I18N("head_info"))
        self.attention = gr.Plot(label=I18N("attention"), elem_id="attention")
        self.passages = _table("passages", elem_id="passages")

    def connect(self) -> None:
        """Connect the widgets' events to their handlers."""
        options: dict[str, Any] = {"concurrency_id": "model", "api_visibility": "private"}
        sliders, tables = [self.layer, self.head], [self.alternatives, self.layers]
        outputs = [self.looked, self.tokens, *tables, *sliders, self.attention, self.passages]
        chat = self._chat
        self.look_text.click(self._look_at_text, [self.text, chat.model], outputs, **options)
        inputs = [chat.left, chat.model, chat.system]
        self.look_answer.click(self._look_at_answer, inputs, outputs, **options)
        self.tokens.select(self._choose, [self.looked], [self.looked, *tables], **options)
        for slider in sliders:
            slider.release(self._draw, [self.looked, *sliders], self.attention, **options)

    def _look_at_text(self, text: str, name: str, request: gr.Request) -> list[Any]:
        say = messages_for(request)
        with shown_errors():
            if len(text) > MAX_CHARACTERS:
                raise ValueError(say("too_long", length=len(text), limit=MAX_CHARACTERS))
            if not text.strip():
                raise ValueError(say("empty"))
            _, tokenizer = self._shelf.open(name)
            ids = tokenizer.encode_beginning(text)
            return self._look(name, ids, len(ids) - 1, request)
        return [gr.skip()] * 8

    def _look_at_answer(
        self, history: History, name: str, system: str, request: gr.Request
    ) -> list[Any]:
        with shown_errors():
            messages = messages_of(history)
            if len(messages) < 2:
                raise ValueError(messages_for(request)("no_answer"))
            _, tokenizer = self._shelf.open(name)
            answer = tokenizer.encode(messages[-1].text)
            prompt = encode_prompt(messages[:-1], tokenizer)
            if system and (opening := encode_message(_system(system), tokenizer)):
                num_before = len(tokenizer.chat.beginning)
                prompt[num_before:num_before] = opening
            return self._look(name, [*prompt, *answer], len(answer), request)
        return [gr.skip()] * 8

    def _look(self, name: str, ids: list[int], num_new: int, request: gr.Request) -> list[Any]:
        """Return all outputs; only the last `num_new` tokens are searched in the training files."""
        say, opened = messages_for(request), self._shelf.open(name)
        model, tokenizer = opened
        limit = min(_MAX_TOKENS, model.config.context_length)
        if len(ids) > limit:
            gr.Info(say("cut", limit=limit))
        looked = Looked(name, ids[-limit:], len(ids[-limit:]) - 1)
        seen = look_at_tokens(model, looked.ids)
        last_layer, last_head = model.config.num_layers - 1, model.config.num_heads - 1
        new_ids = ids[len(ids) - num_new :]
        return [
            looked,
            [(_name(tokenizer, token.id), _shade(token)) for token in seen],
            *self._tables(looked, opened, request),
            gr.Slider(0, max(1, last_layer), last_layer, step=1),
            gr.Slider(0, max(1, last_head), 0, step=1),
            _figure(looked, opened, last_layer, 0),
            self._found(name, new_ids, tokenizer, request),
        ]

    def _choose(
        self, looked: Looked | None, chosen: gr.SelectData, request: gr.Request
    ) -> list[Any]:
        if looked is None:
            return [gr.skip()] * 3
        looked = Looked(*looked)._replace(place=int(chosen.index))
        with shown_errors():
            return [looked, *self._tables(looked, self._shelf.open(looked.model), request)]
        return [gr.skip()] * 3

    def _draw(self, looked: Looked | None, layer: float, head: float) -> Any:
        if looked is None:
            return gr.skip()
        with shown_errors():
            looked = Looked(*looked)
            return _figure(looked, self._shelf.open(looked.model), int(layer), int(head))
        return gr.skip()

    def _tables(self, looked: Looked, opened: OpenedModel, request: gr.Request) -> list[Any]:
        """Return the model's guesses for the chosen token, at the end and after each layer."""
        (model, tokenizer), say = opened, messages_for(request)
        place = min(looked.place, len(looked.ids) - 1)
        token = look_at_tokens(model, looked.ids[: place + 1])[-1]
        rows = [[_name(tokenizer, guess.id), f"{guess.ratio:.1%}"] for guess in token.alternatives]
        given = "—" if token.ratio is None else f"{token.ratio:.1%}"
        rows.insert(0, [f"→ {_name(tokenizer, token.id)}", given])
        layers = layer_guesses(model, looked.ids[:place]) if place else []
        guesses = [[n, _joined(tokenizer, row[-1])] for n, row in enumerate(layers)]
        return [
            {"headers": [say("token"), say("probability")], "data": rows},
            {"headers": [say("layer"), say("guesses")], "data": guesses or [["", say("first")]]},
        ]

    def _found(
        self, name: str, ids: Sequence[int], tokenizer: Tokenizer, request: gr.Request
    ) -> dict[str, Any]:
        """Return the longest passages of a text that are also in the training files."""
        say = messages_for(request)
        headers = [say("passage"), say("source"), say("document")]
        indexes = self._open_passages(name, tokenizer)
        if not indexes:
            return {"headers": headers, "data": [[say("no_data", root="data/"), "", ""]]}
        found = [run for index in indexes for run in index.longest(ids, min_tokens=_LEAST_PASSAGE)]
        found.sort(key=lambda run: run.begin - run.end)
        rows: list[list[Any]] = [
            [tokenizer.decode(ids[run.begin : run.end]), run.source, run.document]
            for run in found[:10]
        ]
        none = [say("no_passages", least=_LEAST_PASSAGE), "", ""]
        return {"headers": headers, "data": rows or [none]}


def _figure(looked: Looked, opened: OpenedModel, layer: int, head: int) -> Figure:
    """Draw the attention of a head; a layer or head that is too high means the last one."""
    model, tokenizer = opened
    layer = min(layer, model.config.num_layers - 1)
    head = min(head, model.config.num_heads - 1)
    weights = attention_weights(model, looked.ids)[layer]
    names = [_name(tokenizer, id) for id in looked.ids]
    return plot_attention(weights, names, window_size=model.config.windows[layer], head=head)


def _system(text: str) -> Message:
    return Message(role="system", text=text)


def _table(label: str, **options: Any) -> gr.Dataframe:
    return gr.Dataframe(
        label=I18N(label), interactive=False, datatype="str", wrap=True, buttons=[], **options
    )


def _shade(token: SeenToken) -> str | None:
    if token.ratio is None:
        return None
    ratio = token.ratio
    return next((name for name, (least, _) in _SHADES.items() if ratio >= least), _RARE[0])


def _name(tokenizer: Tokenizer, id: int) -> str:
    """Return a token on one line: the name of a special token, or the text of another."""
    if id in tokenizer.special_ids.values():
        return tokenizer.tokens[id].replace("⮜", "‹").replace("⮞", "›")  # fonts lack the others
    return tokenizer.token_text(id).replace("\n", "↵").replace("\t", "⇥")


def _joined(tokenizer: Tokenizer, guesses: Sequence[Guess]) -> str:
    return "   ".join(f"{_name(tokenizer, guess.id)} {guess.ratio:.0%}" for guess in guesses)
