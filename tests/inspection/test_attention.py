import pytest
import torch

from dimgpt.config import ModelConfig
from dimgpt.inspection.attention import attention_weights
from dimgpt.model.attention import visible
from dimgpt.model.transformer import Transformer

IDS = [3, 7, 1, 19, 4, 4, 11, 0]
SHAPE = {
    "vocab_size": 20,
    "context_length": 8,
    "embedding_dim": 16,
    "num_layers": 3,
    "num_heads": 4,
    "num_kv_heads": 2,
    "ffn_dim": 24,
    "init_std": 0.5,
    "window_size": 3,
}
CONFIGS = {
    "published": {},
    "whole context": {"window_size": None, "num_kv_heads": 4},
    "added positions and biases": {"positions": "sinusoidal", "use_biases": True, "norm": "layer"},
    "norms, values and scalars": {
        "qk_norm": True,
        "use_value_embeddings": True,
        "use_stream_scalars": True,
    },
    "experts": {"num_experts": 4, "experts_per_token": 2},
    "some layers see all": {"attention_pattern": ("window", "full")},
}


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    torch.manual_seed(0)
    return Transformer(ModelConfig(**{**SHAPE, **CONFIGS[request.param]})).eval()


def test_weights_times_values_are_what_the_layer_says(model):
    said, values = [], []
    for block in model.blocks:
        layer = block.attention
        layer.register_forward_hook(lambda layer, given, result: said.append(result[0]))
        layer.register_forward_pre_hook(
            lambda layer, given: values.append(layer.project(given[0], given[1], given[3])[2][0])
        )
    weights = attention_weights(model, IDS)
    for block, each, value, expected in zip(model.blocks, weights, values, said, strict=True):
        with torch.no_grad():
            value = value.repeat_interleave(each.shape[0] // value.shape[1], dim=1)
            mixed = torch.einsum("hts,shd->thd", each, value).flatten(-2)
            torch.testing.assert_close(block.attention.output(mixed), expected, atol=1e-5, rtol=0)


def test_rows_sum_to_1_and_are_0_outside_of_the_window(model):
    for each, window in zip(attention_weights(model, IDS), model.config.windows, strict=True):
        assert each.shape == (4, len(IDS), len(IDS))
        torch.testing.assert_close(each.sum(dim=-1), torch.ones(4, len(IDS)))
        hidden = ~visible(len(IDS), len(IDS), window, "cpu")
        assert not each[:, hidden].any()
        assert (each[:, ~hidden] > 0).all()


def test_looking_leaves_no_hook_behind(model):
    before = [len(block.attention._forward_pre_hooks) for block in model.blocks]
    with pytest.raises(ValueError, match="context"):
        attention_weights(model, IDS * 2)
    assert [len(block.attention._forward_pre_hooks) for block in model.blocks] == before
