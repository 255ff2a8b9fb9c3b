"""Minimal pairs are scored by the probabilities of whole sentences."""

import math
from dataclasses import replace

import pytest
import torch

from dimgpt.config import ModelConfig
from dimgpt.evaluation.probes import Pair, are_right, log_probabilities, score_pairs
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.text.special_tokens import SPECIAL_TOKENS

CPU = Runtime(device=torch.device("cpu"), precision="fp32")
TOKENIZER = GreedyTokenizer([*SPECIAL_TOKENS, *"abcdelmn. "])
CONFIG = ModelConfig(
    vocab_size=TOKENIZER.vocab_size,
    context_length=12,
    window_size=None,
    embedding_dim=16,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    ffn_dim=24,
    init_std=0.5,
)
PAIRS = [
    Pair("order", "a b.", "b a."),
    Pair("order", "a bcd.", "c d."),
    Pair("order", "le.", "el."),
    Pair("form", "la lame.", "le lame."),
    Pair("form", "la zone.", "le zone."),  # no z
    Pair("form", "a" * 12 + ".", "a."),  # longer than the context
]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Transformer(CONFIG).eval()


def naive(model, ids):
    total = 0.0
    for place in range(1, len(ids)):
        with torch.no_grad():
            scores = model(torch.tensor([ids[:place]]))[0, -1].double().log_softmax(-1)
        total += float(scores[ids[place]])
    return total


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_a_sentence_has_the_probability_of_its_tokens_one_after_the_other(model, batch_size):
    sequences = [TOKENIZER.encode_beginning(text) for text in ("a.", "le lac", "b", "a b c d")]
    scores = log_probabilities(model, sequences, runtime=CPU, batch_size=batch_size)
    assert scores == pytest.approx([naive(model, ids) for ids in sequences], abs=1e-4)


def test_the_more_probable_sentence_is_the_models_choice(model):
    expected = [
        naive(model, TOKENIZER.encode_beginning(right))
        > naive(model, TOKENIZER.encode_beginning(wrong))
        for _, right, wrong in PAIRS[:4]
    ]
    assert are_right(model, TOKENIZER, PAIRS, runtime=CPU) == [*expected, None, None]
    order, form, everything = score_pairs(model, TOKENIZER, PAIRS, runtime=CPU)
    assert (order.kind, order.pairs, order.left_out) == ("order", 3, 0)
    assert (form.kind, form.pairs, form.left_out) == ("form", 1, 2)
    assert (everything.kind, everything.pairs, everything.left_out) == ("all", 4, 2)
    assert everything.accuracy == sum(expected) / 4
    assert everything.low < everything.accuracy < everything.high or sum(expected) in (0, 4)


def test_swapping_right_and_wrong_turns_every_answer(model):
    answers = are_right(model, TOKENIZER, PAIRS[:4], runtime=CPU)
    turned = [Pair(kind, wrong, right) for kind, right, wrong in PAIRS[:4]]
    assert are_right(model, TOKENIZER, turned, runtime=CPU) == [
        not is_right for is_right in answers
    ]


def test_a_kind_that_cannot_be_written_has_no_score_and_a_vocabulary_that_writes_nothing_is_refused(
    model,
):
    foreign = [Pair("letters", "zig.", "zag.")]
    letters, _ = [*score_pairs(model, TOKENIZER, [*foreign, PAIRS[0]], runtime=CPU)][::2]
    assert (letters.pairs, letters.left_out) == (0, 1)
    assert math.isnan(letters.accuracy)
    with pytest.raises(ValueError, match="cannot encode any of the 1 pairs"):
        score_pairs(model, TOKENIZER, foreign, runtime=CPU)


@pytest.mark.slow
def test_a_model_of_random_weights_is_near_chance():
    pairs = [
        Pair("x", f"{a}{b}{c}.", f"{c}{a}{b}.")
        for a in "abcdelmn"
        for b in "abcdelmn"
        for c in "abcdelmn"
        if a != c
    ]
    shares = []
    for seed in range(8):
        torch.manual_seed(seed)
        model = Transformer(replace(CONFIG, init_std=0.05)).eval()
        shares.append(score_pairs(model, TOKENIZER, pairs, runtime=CPU)[-1].accuracy)
    assert 0.4 < sum(shares) / len(shares) < 0.6
