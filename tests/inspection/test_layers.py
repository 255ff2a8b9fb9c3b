import pytest
import torch

from dimgpt.config import ModelConfig
from dimgpt.inspection.layers import layer_guesses
from dimgpt.inspection.neighbours import nearest_tokens
from dimgpt.model.transformer import Transformer

IDS = [3, 7, 1, 19, 4]
SHAPE = {
    "vocab_size": 20,
    "context_length": 8,
    "embedding_dim": 16,
    "num_heads": 2,
    "num_kv_heads": 1,
    "ffn_dim": 24,
    "init_std": 0.5,
}


def new_model(**changes):
    torch.manual_seed(0)
    return Transformer(ModelConfig(**{**SHAPE, "num_layers": 3, **changes})).eval()


@pytest.mark.parametrize(
    "changes", [{}, {"logit_cap": 2.0, "tie_embeddings": False}, {"use_final_norm": False}]
)
def test_the_last_layer_says_what_the_model_says(changes):
    model = new_model(**changes)
    guesses = layer_guesses(model, IDS, count=20)
    with torch.no_grad():
        expected = model(torch.tensor([IDS]))[0].softmax(dim=-1)
    assert [len(layer) for layer in guesses] == [5, 5, 5]
    for place, row in enumerate(guesses[-1]):
        assert [guess.ratio for guess in row] == sorted((g.ratio for g in row), reverse=True)
        for guess in row:
            assert guess.ratio == pytest.approx(float(expected[place, guess.id]), abs=1e-6)


def test_a_layer_says_what_a_model_that_ends_there_says():
    model = new_model()
    shorter = new_model(num_layers=2)
    shorter.load_state_dict(model.state_dict(), strict=False)
    ours, theirs = layer_guesses(model, IDS)[1], layer_guesses(shorter, IDS)[-1]
    assert [[g.id for g in row] for row in ours] == [[g.id for g in row] for row in theirs]


def test_neighbours_are_those_with_the_largest_cosine_and_never_the_token_itself():
    model = new_model()
    weight = model.token_embedding.weight
    with torch.no_grad():
        weight[7] = -2 * weight[3]
        weight[5] = 3 * weight[3]
    nearest = nearest_tokens(model, 3, count=50)
    assert len(nearest) == 19
    assert nearest[0] == (5, pytest.approx(1.0, abs=1e-6))
    assert nearest[-1] == (7, pytest.approx(-1.0, abs=1e-6))
    assert 3 not in [guess.id for guess in nearest]
    with pytest.raises(ValueError, match="id is 20"):
        nearest_tokens(model, 20)
