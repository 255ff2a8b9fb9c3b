import math

import pytest
import torch

from dimgpt.config import ModelConfig
from dimgpt.inspection.tokens import best_guesses, look_at_tokens, surprisals
from dimgpt.model.transformer import Transformer

IDS = [3, 7, 1, 19, 4]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=20,
        context_length=8,
        embedding_dim=16,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        ffn_dim=24,
        init_std=0.5,
    )
    return Transformer(config).eval()


def probabilities(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids]))[0, -1].double().softmax(-1)


def test_a_token_is_as_surprising_as_its_probability_says(model):
    expected = [
        -math.log2(probabilities(model, IDS[:place])[IDS[place]]) for place in range(1, len(IDS))
    ]
    assert surprisals(model, IDS) == pytest.approx(expected, abs=1e-4)


def test_bits_add_up_to_the_loss(model):
    with torch.no_grad():
        logits = model(torch.tensor([IDS[:-1]]))[0]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(IDS[1:]), reduction="sum")
    assert sum(surprisals(model, IDS)) * math.log(2) == pytest.approx(loss.item(), abs=1e-4)


def test_the_best_guesses_come_best_first(model):
    expected = probabilities(model, IDS)
    guesses = best_guesses(model, IDS, count=5)
    assert [guess.id for guess in guesses] == expected.argsort(descending=True)[:5].tolist()
    assert [guess.ratio for guess in guesses] == pytest.approx(
        [float(expected[guess.id]) for guess in guesses], abs=1e-6
    )


def test_of_a_small_vocabulary_all_tokens_are_guessed(model):
    guesses = best_guesses(model, IDS, count=1000)
    assert sorted(guess.id for guess in guesses) == list(range(20))
    assert sum(guess.ratio for guess in guesses) == pytest.approx(1, abs=1e-5)


def test_more_than_a_context_is_refused(model):
    with pytest.raises(ValueError, match="context"):
        surprisals(model, [1] * 9)


def test_each_token_is_seen_with_its_probability_rank_and_alternatives(model):
    first, *others = look_at_tokens(model, IDS, count=4)
    assert (first.id, first.ratio, first.rank, first.alternatives) == (3, None, None, ())
    for place, seen in enumerate(others, start=1):
        expected = probabilities(model, IDS[:place])
        assert seen.id == IDS[place]
        assert seen.ratio == pytest.approx(float(expected[seen.id]), abs=1e-6)
        order = expected.argsort(descending=True).tolist()
        assert seen.rank == 1 + order.index(seen.id)
        assert [guess.id for guess in seen.alternatives] == order[:4]


def test_one_token_is_seen_and_costs_nothing_and_none_is_refused(model):
    assert [seen.id for seen in look_at_tokens(model, [5])] == [5]
    assert surprisals(model, [5]) == []
    with pytest.raises(ValueError, match="no token"):
        look_at_tokens(model, [])
