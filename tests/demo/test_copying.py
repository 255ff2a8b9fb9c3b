"""Claims about the measure of copying, with models whose copying is known."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from dimgpt.demo import copying
from dimgpt.demo.copying import COPYING, copying_score, mark_words
from dimgpt.demo.corpus import stories
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.text.special_tokens import SPECIAL_TOKENS

SOURCES = ("demo://stories/9", "demo://conversations/9")
LETTERS = sorted({*"".join(stories(300, seed=0)), *"0123456789?Âîç"})
WORDS = [space + word for word in (*copying._NAMES, *copying._FORMS) for space in (" ", "")]
TOKENIZER = GreedyTokenizer([*SPECIAL_TOKENS, *dict.fromkeys([*LETTERS, *WORDS])])
SIZE = TOKENIZER.vocab_size


def stub(logits, context_length=400):
    """Return what looks like a model whose logits (B, T, V) a function of the ids (B, T) gives."""
    weight = torch.zeros(SIZE, 1)

    def model(ids):
        assert ids.shape[1] <= context_length
        return logits(ids)

    model.config = SimpleNamespace(context_length=context_length)
    model.token_embedding = SimpleNamespace(weight=weight)
    return model


def know_nothing(ids):
    return torch.zeros(*ids.shape, SIZE)


def repeat(ids):
    """Expect, at each place, the tokens that were there before; all of them alike."""
    return 20.0 * (F.one_hot(ids, SIZE).cumsum(dim=1) > 0)


@pytest.mark.parametrize("path", SOURCES)
def test_a_model_that_knows_nothing_finds_all_words_equally_hard(path):
    measured = copying_score(stub(know_nothing), TOKENIZER, [path])()
    assert measured == pytest.approx(dict.fromkeys(COPYING, math.log(SIZE)), rel=1e-5)


@pytest.mark.parametrize("path", SOURCES)
def test_a_model_that_repeats_pays_for_first_words_only(path):
    measured = copying_score(stub(repeat), TOKENIZER, [path])()
    for word in ("name", "noun"):
        assert measured[f"first_{word}"] > 20
        assert measured[f"repeated_{word}"] < 5


def marked(text, tokenizer, kind, first_repeated=0):
    ids = tokenizer.encode(text)
    groups, counts = mark_words(ids, tokenizer, first_repeated=first_repeated)
    chosen = [id for id, group in zip(ids, groups.tolist(), strict=True) if group == 1 + kind]
    return tokenizer.decode(chosen).replace(" ", ""), counts[kind]


@pytest.mark.parametrize(
    "tokenizer", [TOKENIZER, GreedyTokenizer([*SPECIAL_TOKENS, *LETTERS])], ids=["words", "letters"]
)
def test_a_word_counts_once_however_many_tokens_it_has(tokenizer):
    text = "Ce matin, Noé lave un pain. Anna cache le lapin. Pain d'Anna, Noé, et lapins du lapin."
    found = [marked(text, tokenizer, kind) for kind in range(4)]
    assert found == [("NoéAnna", 2), ("AnnaNoé", 2), ("painlapinlapins", 3), ("lapin", 1)]


def test_words_that_a_question_repeats_are_not_counted():
    told = "Ce matin, Marc mange un pain."
    start = len(TOKENIZER.encode(f"{told} Que mange Marc ?"))
    text = f"{told} Que mange Marc ? {told}"
    assert marked(text, TOKENIZER, 1, first_repeated=start) == ("Marc", 1)
    assert marked(text, TOKENIZER, 1) == ("MarcMarc", 2)


@pytest.mark.parametrize("paths", [["data/mine.txt"], [SOURCES[0], "data/mine.txt"]])
def test_texts_that_are_not_the_demos_are_not_measured(paths):
    assert copying_score(stub(know_nothing), TOKENIZER, paths) is None


def test_a_context_too_short_to_repeat_a_word_is_not_measured():
    assert copying_score(stub(know_nothing, context_length=8), TOKENIZER, SOURCES[:1]) is None


def test_measuring_leaves_the_random_numbers_alone():
    before = torch.get_rng_state()
    copying_score(stub(repeat), TOKENIZER, SOURCES[:1])()
    assert torch.equal(before, torch.get_rng_state())
