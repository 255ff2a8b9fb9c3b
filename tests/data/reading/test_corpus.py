import dataclasses

import pytest

from dimgpt.config import ConversationSourceConfig, SourceConfig
from dimgpt.data.reading.finetuning import ConversationCorpus
from dimgpt.data.reading.pretraining import Corpus

FINGERPRINT = "f" * 64
BOOKS = SourceConfig(name="books", path="b", group="livres", multiplier=0.5)
NEWS = SourceConfig(name="news", path="n", multiplier=3.0)


@pytest.fixture
def folder(tmp_path, write_files):
    write_files(tmp_path / "books", {"train": [[2, 20, 20, 9]] * 6, "validation": [[2, 9]]})
    write_files(tmp_path / "news", {"train": [[2, 30, 30, 9]], "validation": [[2, 9]] * 2})
    return tmp_path


def test_a_source_is_drawn_by_tokens_times_multiplier(folder):
    corpus = Corpus.open(folder, [BOOKS, NEWS], FINGERPRINT)
    assert corpus.train.ratios.tolist() == [0.5, 0.5]
    assert corpus.validation.ratios.tolist() == pytest.approx([1 / 13, 12 / 13])


def test_the_table_shows_what_is_drawn(folder):
    books, news = Corpus.open(folder, [BOOKS, NEWS], FINGERPRINT).table()
    assert books["source"] == "books"
    assert (books["group"], books["documents"], books["tokens"]) == ("livres", 6, 24)
    assert (news["multiplier"], news["ratio"]) == (3.0, 0.5)


def test_a_test_split_is_there_when_all_sources_have_one(folder, write_files):
    assert Corpus.open(folder, [BOOKS, NEWS], FINGERPRINT).test is None
    splits = {"train": [[2, 20, 9]], "validation": [[2, 9]], "test": [[2, 21, 9]]}
    write_files(folder / "books", splits)
    assert Corpus.open(folder, [BOOKS, NEWS], FINGERPRINT).test is None
    test = Corpus.open(folder, [BOOKS], FINGERPRINT).test
    assert test.files[0].document(0).tolist() == [2, 21, 9]


def test_an_unprepared_source_is_named(folder):
    wiki = SourceConfig(name="wiki", path="w")
    with pytest.raises(FileNotFoundError, match=r"wiki is not prepared; prepare it again"):
        Corpus.open(folder, [BOOKS, wiki], FINGERPRINT)
    with pytest.raises(ValueError, match="sources is empty"):
        Corpus.open(folder, [], FINGERPRINT)


CHAT = ConversationSourceConfig(name="chat", path="c", ratio=0.9, system_prompts_path="p")
OTHER = ConversationSourceConfig(name="other", path="o", ratio=0.3)


@pytest.fixture
def conversations(tmp_path, write_files):
    splits = {"train": [[7, 20, 8, 21]], "validation": [[7, 22, 8, 23]]}
    write_files(tmp_path / "chat", {**splits, "system_prompts": [[6, 40]]})
    write_files(tmp_path / "other", splits)
    return tmp_path


def test_groups_are_drawn_by_their_ratios(conversations):
    corpus = ConversationCorpus.open(conversations, [CHAT, OTHER], FINGERPRINT)
    assert corpus.train.ratios.tolist() == pytest.approx([0.75, 0.25])
    assert corpus.system_prompts[0].document(0).tolist() == [6, 40]
    assert corpus.system_prompts[1] is None


def test_system_prompts_that_do_not_exist_are_named(conversations):
    group = dataclasses.replace(CHAT, system_prompt_ratios={"chat": 0.5, "other": 0.5})
    with pytest.raises(ValueError, match=r"names 'other', which has no system prompts.*: chat\)"):
        ConversationCorpus.open(conversations, [group, OTHER], FINGERPRINT)
