import json

import pytest

from dimgpt.config import SourceConfig
from dimgpt.data.preparing.vocabulary_sample import sample_mixture


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
