"""The mixture beside the published one: shown by group, and told where text is missing."""

import dataclasses
import logging

import pytest

from dimgpt.config import DataConfig, SourceConfig
from dimgpt.pipeline.data import open_corpus, prepare_files
from dimgpt.pipeline.mixture import corpus_shortfalls, expected_shortfalls, mixture_rows
from dimgpt.pipeline.vocabulary import prepare_vocabulary
from dimgpt.presets import PRESETS
from dimgpt.settings import override
from dimgpt.workspace import Workspace

GB = 1_000_000_000


def config(sizes, shares, **multipliers):
    sources = tuple(
        SourceConfig(
            name=name,
            path="x",
            group=name,
            expected_bytes=size,
            multiplier=multipliers.get(name, 1.0),
        )
        for name, size in sizes.items()
    )
    return DataConfig(sources=sources, published_shares=shares)


def test_a_group_that_lacks_text_is_told_with_what_is_missing_and_what_would_reach_it():
    data = config({"web": 80 * GB, "news": 10 * GB}, {"web": 0.8, "news": 0.2}, news=0.5)
    web, news = expected_shortfalls(data)
    assert web.startswith("web: 94.1% of the mixture instead of 80.0%; other groups")
    # 20 of 100 are reached with 40 GB at 0.5, or with 10 GB at 2.
    assert news.startswith("news: 5.9% of the mixture instead of 20.0%; 30.00 GB of text are miss")
    assert "are missing, and the shares of the other groups rise" in news
    assert "A multiplier of 2 instead of 0.5 reaches the share" in news
    assert not any("\n" in line for line in (web, news))
    sources = [dataclasses.replace(data.sources[1], multiplier=2.0), data.sources[0]]
    assert expected_shortfalls(override(data, sources=tuple(sources))) == []
    grown = dataclasses.replace(data.sources[1], expected_bytes=40 * GB)
    assert expected_shortfalls(override(data, sources=(data.sources[0], grown))) == []


def test_a_cap_counts_and_a_point_is_tolerated():
    data = config({"web": 80 * GB, "news": 20 * GB}, {"web": 0.79, "news": 0.21})
    assert expected_shortfalls(data) == []
    capped = dataclasses.replace(data.sources[1], max_bytes=10 * GB)
    lines = expected_shortfalls(override(data, sources=(data.sources[0], capped)))
    assert lines[1].startswith("news: 11.1% of the mixture instead of 21.0%; 11.27 GB")


def test_a_group_without_a_source_is_named():
    lines = expected_shortfalls(config({"web": GB}, {"web": 0.8, "news": 0.2}))
    assert lines[1].startswith("news: 0.0% of the mixture instead of 20.0%; it has no source")


def test_nothing_is_said_where_no_shares_are_stated_or_sizes_are_unknown():
    assert expected_shortfalls(config({"web": GB}, {})) == []
    assert expected_shortfalls(config({"own": GB}, {"web": 0.5, "news": 0.5})) == []
    data = config({"web": GB, "news": GB}, {"web": 0.9, "news": 0.1})
    unknown = dataclasses.replace(data.sources[0], expected_bytes=None)
    assert expected_shortfalls(override(data, sources=(unknown, data.sources[1]))) == []


@pytest.mark.parametrize("shares", [{"a": 1.0}, {"a": -0.1}, {"a": 0.6, "b": 0.6}])
def test_shares_that_no_mixture_has_are_refused(shares):
    with pytest.raises(ValueError, match="published_shares is .*at most 1"):
        DataConfig(published_shares=shares)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Two sources of a group that are one part of the mixture, and one that is another group."""
    demo = PRESETS["demo"]
    sources = tuple(
        SourceConfig(name=name, group=group, path=f"demo://stories/{count}", expected_bytes=size)
        for name, group, count, size in (
            ("one", "web", 100, 6_000),
            ("two", "web", 100, 2_000),
            ("three", "news", 200, 2_000),
        )
    )
    data = override(
        demo.data,
        sources=sources,
        published_shares={"web": 0.8, "news": 0.2},
        vocab_size=300,
        num_workers=1,
    )
    data = dataclasses.replace(data, conversations=())
    folder = tmp_path_factory.mktemp("mixture")
    workspace = Workspace(preset=override(demo, data=data), data_root=folder)
    prepare_files(workspace, prepare_vocabulary(workspace))
    return workspace


@pytest.mark.slow
def test_shares_of_groups_stand_beside_the_published_ones(prepared):
    rows = mixture_rows(open_corpus(prepared), {"web": 0.8, "news": 0.2})
    assert [row["published"] for row in rows] == [0.8, "", 0.2]
    assert rows[0]["group ratio"] == rows[0]["ratio"] + rows[1]["ratio"]
    assert rows[1]["group ratio"] == ""
    blank = mixture_rows(open_corpus(prepared), {})
    assert {row["published"] for row in blank} == {""}
    assert "group ratio" not in blank[0]


@pytest.mark.slow
def test_the_tokens_that_were_prepared_are_compared_too(prepared):
    corpus = open_corpus(prepared)
    one, two, three = (file.num_tokens for file in corpus.train.files)
    web, news = corpus_shortfalls(corpus, {"web": 0.2, "news": 0.8})
    assert web.startswith(f"web: {(one + two) / (one + two + three):.1%} of the mixture")
    missing = 4 * (one + two) - three
    assert f"instead of 80.0%; {missing:,} tokens are missing" in news


@pytest.mark.slow
def test_a_mixture_that_will_lack_text_is_told_before_anything_is_read(prepared, tmp_path, caplog):
    news = dataclasses.replace(prepared.preset.data.sources[2], expected_bytes=100)
    sources = (*prepared.preset.data.sources[:2], news)
    preset = override(prepared.preset, data=override(prepared.preset.data, sources=sources))
    workspace = Workspace(preset=preset, data_root=tmp_path)
    tokenizer = prepare_vocabulary(workspace)
    with caplog.at_level(logging.WARNING):
        prepare_files(workspace, tokenizer)
    told = [record.message for record in caplog.records if "of the mixture" in record.message]
    assert [line.split(":")[0] for line in told] == ["web", "news"]
    caplog.clear()
    prepare_files(workspace, tokenizer)  # nothing is left to do
    assert not caplog.records
