import json
from collections import Counter

import pytest

from dimgpt.config import SourceConfig
from dimgpt.data.preparing import vocabulary_sample
from dimgpt.data.preparing.vocabulary_sample import SampleCount, sample_mixture


def write_source(path, documents, **settings):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    return SourceConfig(name=path.stem, path=str(path), **settings)


def test_the_mixture_follows_size_and_multiplier(tmp_path):
    cats = write_source(tmp_path / "cats.jsonl", ["chat" * 25] * 300, multiplier=3.0)
    dogs = write_source(tmp_path / "dogs.jsonl", ["chien" * 20] * 600, multiplier=0.5)
    sample = list(sample_mixture([cats, dogs], num_characters=60_000, seed=0))
    num_cats = sum(text.startswith("chat") for text in sample)
    assert len(sample) == pytest.approx(600, rel=0.1)
    assert num_cats / len(sample) == pytest.approx(0.75, abs=0.05)
    assert sample == list(sample_mixture([cats, dogs], num_characters=60_000, seed=0))
    assert sample != list(sample_mixture([cats, dogs], num_characters=60_000, seed=1))


def test_a_small_mixture_gives_everything(tmp_path):
    cats = write_source(tmp_path / "cats.jsonl", ["chat", "chaton"], multiplier=2.0)
    dogs = write_source(tmp_path / "dogs.jsonl", ["chien"], multiplier=0.5)
    sample = list(sample_mixture([cats, dogs], num_characters=10**9, seed=0))
    assert sorted(sample) == ["chat"] * 4 + ["chaton"] * 4 + ["chien"]


def test_what_each_source_gave_and_every_character_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary_sample, "_COUNTED_CHARACTERS", 5)
    cats = write_source(tmp_path / "cats.jsonl", ["chat", "été\n"], multiplier=2.0)
    dogs = write_source(tmp_path / "dogs.jsonl", ["chien \U0001f436"], multiplier=1.0)
    count = SampleCount()
    sample = list(sample_mixture([cats, dogs], num_characters=10**9, seed=0, count=count))
    assert sample == ["chat", "chat", "été\n", "été\n", "chien \U0001f436"]
    assert count.sources == {"cats": 16, "dogs": 7}
    assert count.characters == Counter("".join(sample))
    assert count.source_rows()[1] == {"source": "dogs", "characters": 7, "share": 7 / 23}
    names = count.named_characters()
    assert names[:2] == ["t 4", "é 4"]
    assert {"U+000A 2", "U+0020 1", "\U0001f436 1"} < set(names)


def test_a_sample_of_nothing_and_lone_surrogates_can_be_counted():
    count = SampleCount()
    assert list(count.watch("none", [])) == []
    assert list(count.watch("odd", ["", "\ud800"])) == ["", "\ud800"]
    assert count.sources == {"none": 0, "odd": 1}
    assert count.named_characters() == ["U+D800 1"]
    assert SampleCount().source_rows() == []
