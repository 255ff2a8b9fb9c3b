"""The model card: a README for users, with the header that the Hugging Face hub reads.

The facts are stored beside the weights as `card.json`, so that an export can include them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dimgpt.config import ModelConfig
from dimgpt.model.flops import num_active_parameters, num_parameters
from dimgpt.settings import from_dict, to_dict
from dimgpt.weights.foreign_files import one_line

CURVES_NAME = "curves.png"
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~#&$])")


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """Facts about a model besides its shape."""

    name: str = ""
    """Title; the name of its folder if empty."""
    facts: dict[str, str] = field(default_factory=dict)
    """Rows of the first table: costs and results of the training, bits per byte."""
    mixture: tuple[dict[str, Any], ...] = ()
    """One row a source: column -> value."""
    training: dict[str, Any] = field(default_factory=dict)
    """Settings of the training, by their names in `TrainingConfig`."""
    languages: tuple[str, ...] = ()
    """ISO 639 codes."""
    licence: str = ""
    """Licence of the weights, as the hub spells it: `mit`, `apache-2.0`."""
    notes: tuple[str, ...] = ()
    """Sentences about the licences of the sources, and other things a user must know."""
    origin: dict[str, str] = field(default_factory=dict)
    """The checkpoint or the model that this one was made from, with its SHA-256; see `verify`."""

    def to_json(self) -> bytes:
        """Return the content of `card.json`."""
        return json.dumps(to_dict(self), indent=2, ensure_ascii=False, default=str).encode()

    @classmethod
    def from_json(cls, path: Path) -> "Card":
        """Read a `card.json`; a damaged one raises a `ValueError`."""
        try:
            card = from_dict(cls, json.loads(path.read_bytes()))
            tables = [card.facts, card.training, card.origin, *card.mixture]
            if not all(isinstance(table, dict) for table in tables):
                raise TypeError("facts, training, origin and rows of mixture must be JSON objects")
            return card
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{path} is no valid model card ({one_line(error)}): copy the folder again"
            ) from None


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Instructions for the files beside a card."""

    text: str
    """Code, or another way to use them, in Markdown."""
    notes: tuple[str, ...] = ()
    """Differences to dimgpt, a sentence each."""
    library: str = ""
    """Library that the hub names, such as `transformers`."""
    tags: tuple[str, ...] = ()
    """Search terms of the hub."""


OWN_USAGE = Usage(
    text="""```python
from pathlib import Path

from dimgpt.weights.store import load_model, load_tokenizer

folder = Path(".")  # this folder
model, tokenizer = load_model(folder), load_tokenizer(folder)
```"""
)
"""Instructions for a model folder."""
USAGE_WITHOUT_TEXT = Usage(
    text="""```python
from pathlib import Path

from dimgpt.weights.store import load_model

model = load_model(Path("."))  # this folder
```""",
    notes=("The folder has no tokenizer: the model gives logits for token ids, and no text.",),
)
"""Instructions for a model folder without a tokenizer."""
_ARCHITECTURE = (
    "attention_pattern",
    "norm",
    "positions",
    "qk_norm",
    "feed_forward",
    "num_experts",
    "experts_per_token",
    "use_shared_expert",
    "use_biases",
    "use_final_norm",
    "tie_embeddings",
    "logit_cap",
    "use_stream_scalars",
    "use_value_embeddings",
)


def card_text(
    card: Card, config: ModelConfig, *, usage: Usage = OWN_USAGE, has_curves: bool = False
) -> str:
    """Return the README: facts about the model and its files; unknown facts are left out.

    The card's name is its title. With `has_curves` it shows the `curves.png` beside it.
    """
    rows = {"Parameters": f"{num_parameters(config):,}", **active_rows(config), **card.facts}
    rows |= _sizes(config)
    parts = [
        _header(card, usage),
        f"# {_escape(card.name)}",
        "A language model, in files that dimgpt wrote.",
        _table([("", ""), *rows.items()]),
        "## How to use it",
        usage.text,
        *_bullets(usage.notes),
    ]
    if card.mixture:
        columns = list(dict.fromkeys(column for row in card.mixture for column in row))
        body = [[row.get(column, "") for column in columns] for row in card.mixture]
        parts += ["## Data", _table([columns, *body])]
    if card.training or has_curves:
        parts.append("## Training")
    if has_curves:
        parts.append(f"![Loss and accuracy]({CURVES_NAME})")
    if card.training:
        parts.append(_table([("Setting", "Value"), *card.training.items()]))
    if card.notes:
        parts += ["## Licences and limits", *_bullets(card.notes)]
    return "\n\n".join(parts) + "\n"


def active_rows(config: ModelConfig) -> dict[str, str]:
    """Return a row with the parameters that a token uses; empty for a model without experts."""
    is_sparse = config.num_experts is not None
    return {"Active parameters": f"{num_active_parameters(config):,}"} if is_sparse else {}


def architecture_rows(config: ModelConfig) -> dict[str, str]:
    """Return a row with the settings that differ from the defaults; empty if none does."""
    usual = ModelConfig()
    parts = {name: getattr(config, name) for name in _ARCHITECTURE}
    shown = [f"{name}={part!r}" for name, part in parts.items() if part != getattr(usual, name)]
    return {"Architecture": ", ".join(shown)} if shown else {}


def _header(card: Card, usage: Usage) -> str:
    values: dict[str, Any] = {
        "language": list(card.languages),
        "license": card.licence,
        "library_name": usage.library,
        "pipeline_tag": "text-generation",
        "tags": ["dimgpt", *usage.tags],
    }
    # JSON is valid YAML.
    lines = [f"{key}: {json.dumps(value)}" for key, value in values.items() if value]
    return "\n".join(["---", *lines, "---"])


def _sizes(config: ModelConfig) -> dict[str, str]:
    windows = [window for window in config.windows if window is not None]
    window = f"{windows[0]:,} tokens" if windows else "full"
    if 0 < len(windows) < config.num_layers:
        window += f" in {len(windows)} of {config.num_layers} layers, full in the others"
    return {
        "Vocabulary": f"{config.vocab_size:,} tokens",
        "Context": f"{config.context_length:,} tokens",
        "Window": window,
        "Layers": str(config.num_layers),
        "Width": str(config.embedding_dim),
        "Width of the feed-forward": str(config.ffn_dim),
        "Heads": f"{config.num_heads} for queries, {config.num_kv_heads} for keys and values",
        **architecture_rows(config),
    }


def _table(rows: Sequence[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(_escape(_shown(cell)) for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value)
    return str(value)


def _bullets(sentences: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {_escape(sentence)}" for sentence in sentences)] if sentences else []


def _escape(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))
