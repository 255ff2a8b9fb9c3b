"""Odd input for everything that reads what a person or another program wrote.

A reader takes it, or refuses it with an error of one line. `make fuzz` tries many more inputs than
`make test` does; input that once broke a reader stays here as an `example`.
"""

import copy
import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from dimgpt.config import DataConfig, ExportConfig, ModelConfig, SourceConfig
from dimgpt.data.preferences import to_preferences
from dimgpt.data.preparing.preparation import prepare_source
from dimgpt.data.reading.pretraining import Corpus
from dimgpt.data.records import FORMS, ROLES, document_of, to_conversations
from dimgpt.model.transformer import Transformer
from dimgpt.pipeline.models import export
from dimgpt.presets import PRESETS
from dimgpt.settings import merge, to_dict
from dimgpt.text.byte_level import train_byte_level
from dimgpt.text.cleaning import clean_text, restore_text
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.weights.checkpoint_file import read_checkpoint
from dimgpt.weights.huggingface import load_huggingface
from dimgpt.weights.store import load_model, load_tokenizer, save_model

FIXTURES = Path(__file__).parents[1] / "fixtures"
TOKENIZER = GreedyTokenizer.load(FIXTURES / "dimensiongpt_sampling" / "vocab_512.txt")
BYTES = train_byte_level(["Le chat voit l'été, 5 €."] * 9, 270, special_tokens=("<|endoftext|>",))
EXAMPLES = int(os.environ.get("DIMGPT_FUZZ_EXAMPLES", "60"))
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
pytestmark = pytest.mark.slow

TEXTS = st.text(max_size=20) | st.sampled_from(["", " ", "\0", "\n", "[SEP]", "\ud800", "é" * 300])
NUMBERS = (
    st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([0, -1, 1, 2**31, 10**6, 10**30])
)
PLAIN = st.none() | st.booleans() | NUMBERS | TEXTS
JSON = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
COLUMNS = ["system", "context", "chosen", "rejected", "content", "text", "value", "tool_calls"]
COLUMNS += ["role", "from", *(column for form in FORMS.values() for column in form.columns)]
MESSAGES = st.lists(
    st.dictionaries(
        st.sampled_from(["role", "from", "content", "text", "value"]),
        st.sampled_from([*ROLES, "tool", "Bonjour.", "", " "]) | JSON,
        max_size=3,
    ),
    max_size=4,
)
RECORDS = st.dictionaries(st.sampled_from(COLUMNS) | TEXTS, JSON | MESSAGES, max_size=6)


def outcome(read, *arguments, **options):
    """Return what a reader makes of its input; None if it refuses it in one line."""
    try:
        return read(*arguments, **options)
    except (ValueError, OSError) as error:
        message = str(error)
    assert len(message.splitlines()) == 1
    return None


def nested(values):
    """Yield the places of all values in a JSON value, as its container and key."""
    items = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in list(items):
        yield values, key
        if isinstance(value, dict | list):
            yield from nested(value)


@st.composite
def changed(draw, values):
    """Change some values of a JSON value, remove some, and add unknown ones."""
    result = copy.deepcopy(values)
    for _ in range(draw(st.integers(1, 3))):
        places = list(nested(result))
        if not places:
            break
        container, key = places[draw(st.integers(0, len(places) - 1))]
        if draw(st.integers(0, 4)) == 0 and isinstance(container, dict):
            del container[key]
        elif draw(st.integers(0, 9)) == 0 and isinstance(container, dict):
            container[draw(TEXTS)] = draw(JSON)
        else:
            container[key] = draw(JSON)
    return result


@st.composite
def damaged(draw, content):
    """Overwrite, cut or repeat some bytes."""
    result = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(result)))
        # Headers are at the beginning and at the end.
        start = draw(st.sampled_from([start, start % 200, max(0, len(result) - start % 200)]))
        end = start + draw(st.integers(0, 16))
        result[start:end] = draw(st.binary(max_size=16) | st.just(result[start:end] * 2))
    return bytes(result)


@given(text=st.text(max_size=200) | st.lists(TEXTS).map("".join))
@fuzzed
def test_cleaned_text_is_clean_and_its_ids_are_of_the_vocabulary(text):
    cleaned = restore_text(clean_text(text))
    assert restore_text(clean_text(cleaned)) == cleaned
    for tokenizer in (TOKENIZER, BYTES):
        ids = tokenizer.encode(text)
        assert all(0 <= int(id) < tokenizer.vocab_size for id in ids)
        assert isinstance(tokenizer.decode(ids), str)


@given(content=damaged(TOKENIZER.to_bytes()) | damaged(BYTES.to_bytes()) | st.binary(max_size=50))
@fuzzed
def test_a_tokenizer_file_is_read_or_refused(tmp_path, content):
    path = tmp_path / ("tokenizer.json" if content[:1] == b"{" else "vocab.txt")
    path.write_bytes(content)
    outcome(Tokenizer.load, path)


@given(records=st.lists(RECORDS, min_size=1, max_size=3), form=st.sampled_from([None, *FORMS]))
@example(records=[{}], form="message_rows")
@fuzzed
def test_a_record_is_a_conversation_or_an_error_that_names_it(records, form):
    rows = [(f"file, line {number}", record) for number, record in enumerate(records, start=1)]
    for read in (lambda: to_conversations(rows, form=form), lambda: to_preferences(rows)):
        for found in read():
            if isinstance(found, ValueError):
                assert str(found).startswith("file, line ")
                assert "\n" not in str(found)
            else:
                assert all(message.text.strip() for message in found.messages)
    for columns in ({}, {"text_template": "{text} {value}"}):
        source = SourceConfig(name="a", path="a", **columns)
        assert isinstance(outcome(document_of, *rows[0], source), str | None)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with one prepared source, and the source."""
    folder = tmp_path_factory.mktemp("data")
    texts = "".join(json.dumps({"text": f"Le chat {i} dort."}) + "\n" for i in range(9))
    (folder / "cats.jsonl").write_text(texts)
    source = SourceConfig(name="cats", path=str(folder / "cats.jsonl"))
    config = DataConfig(min_document_characters=4, validation_ratio=0.3, num_workers=1)
    prepare_source(source, TOKENIZER, folder, config=config)
    return folder, source


@given(data=st.data())
@fuzzed
def test_a_token_folder_that_was_changed_is_refused_or_means_the_same(prepared, data):
    folder, source = prepared
    path = data.draw(st.sampled_from(sorted(folder.glob("cats/*.*"))))
    before = path.read_bytes()
    content = damaged(before)
    if path.suffix == ".json":
        content |= changed(json.loads(before)).map(json.dumps).map(str.encode)
    try:
        path.write_bytes(data.draw(content))
        outcome(Corpus.open, folder, [source], TOKENIZER.fingerprint)
    finally:
        path.write_bytes(before)


CONFIG = ModelConfig(
    vocab_size=512,
    context_length=32,
    window_size=8,
    embedding_dim=16,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    ffn_dim=10,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model folder of ours, its export for transformers, and one of lilLM's checkpoints."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    save_model(Transformer(CONFIG), folder / "ours", tokenizer=TOKENIZER)
    theirs = export(folder / "ours", ExportConfig(target="transformers"))
    return folder / "ours", theirs


@given(data=st.data())
@fuzzed
def test_a_model_folder_that_was_changed_is_refused_or_finite(models, data):
    ours, theirs = models
    folder = data.draw(st.sampled_from([ours, theirs]))
    name = data.draw(st.sampled_from(["config.json", "model.safetensors"]))
    before = (folder / name).read_bytes()
    content = damaged(before)
    if name == "config.json":
        content |= changed(json.loads(before)).map(json.dumps).map(str.encode)
    try:
        (folder / name).write_bytes(data.draw(content))
        if folder == ours:
            model = outcome(load_model, folder)
            outcome(load_tokenizer, folder)
        else:
            model = outcome(load_huggingface, folder)
        if model is not None:
            assert all(weight.isfinite().all() for weight in model.state_dict().values())
    finally:
        (folder / name).write_bytes(before)


@given(data=st.data())
@fuzzed
def test_a_foreign_checkpoint_that_was_changed_is_read_or_refused(tmp_path, models, data):
    good, path = tmp_path / "good.pt", tmp_path / "bad.pt"
    if not good.is_file():
        torch.save({"model": load_file(models[0] / "model.safetensors"), "config": {"a": 1}}, good)
    path.write_bytes(data.draw(damaged(good.read_bytes())))
    outcome(read_checkpoint, path)


PRESET = to_dict(PRESETS["demo"])


@given(values=changed(json.loads(json.dumps(PRESET))))
@fuzzed
def test_a_settings_file_is_taken_or_refused(values):
    outcome(merge, PRESETS["demo"], values)
