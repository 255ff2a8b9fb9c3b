import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dimgpt.config import ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.presets import PRESETS
from dimgpt.weights.checkpoints import CONFIGS
from dimgpt.weights.originals import load_original

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "toygpt"
INFO = json.loads((FIXTURES / "info.json").read_text())
CHECKPOINTS = sorted((ROOT.parent / "shared" / "fixtures" / "toygpt").glob("*.ckpt"))
TINY = ModelConfig(
    vocab_size=512,
    context_length=64,
    window_size=None,
    embedding_dim=64,
    num_layers=3,
    num_heads=4,
    num_kv_heads=4,
    ffn_dim=256,
    dropout=0.1,
    dropout_places=("embedding", "outputs", "qkv", "stream"),
    attention_dropout=0.1,
    norm="layer",
    positions="sinusoidal",
    feed_forward="gelu",
    use_biases=True,
    use_final_norm=False,
    scaled_outputs="none",
)
FUSED = "transformers.1.mha.attn_proj.0.weight"


def state_dict() -> dict[str, torch.Tensor]:
    return dict(torch.load(FIXTURES / "state_dict.pt", weights_only=True))


@pytest.fixture
def saved(tmp_path: Path):
    """Write a checkpoint as Lightning does."""

    def save(state: dict[str, torch.Tensor], **settings: object) -> Path:
        path = tmp_path / "toy.ckpt"
        content = {"epoch": 0, "state_dict": state, "optimizer_states": [{"state": {}}]}
        torch.save({**content, "hyper_parameters": INFO["hyper_parameters"] | settings}, path)
        return path

    return save


def require_same_logits(model: Transformer) -> None:
    inputs = torch.from_numpy(np.load(FIXTURES / "inputs.npy"))
    with torch.inference_mode():
        logits = model(inputs).numpy()
    np.testing.assert_allclose(logits, np.load(FIXTURES / "logits.npy"), atol=1e-4)


def refused(path: Path, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        load_original(path)
    assert "\n" not in str(caught.value)


def test_the_logits_are_the_originals(saved) -> None:
    model = load_original(saved(state_dict())).model
    assert model.config == TINY
    require_same_logits(model)
    assert model.num_parameters == INFO["nb_parameters"]
    assert model.config.norm_eps == 1e-5  # too small a difference for the logits to show


@pytest.mark.skipif(not CHECKPOINTS, reason="needs the original's 2.2 MB checkpoint")
def test_a_lightning_checkpoint_with_its_optimizer_is_read() -> None:
    model = load_original(CHECKPOINTS[0]).model
    assert model.config == TINY
    require_same_logits(model)


def test_the_positions_are_the_originals(saved) -> None:
    table = load_original(saved(state_dict())).model.positions.table.numpy()
    np.testing.assert_allclose(table, np.load(FIXTURES / "pos_embedding.npy").squeeze(), atol=1e-5)


def test_a_bare_state_dict_needs_its_heads_where_its_width_is_no_published_one() -> None:
    refused(
        FIXTURES / "state_dict.pt",
        "does not contain n_head, and no published model has the width 64",
    )
    require_same_logits(load_original(FIXTURES / "state_dict.pt", TINY).model)


@pytest.mark.slow
def test_a_bare_state_dict_of_a_published_width_has_the_published_heads(tmp_path: Path) -> None:
    config = replace(
        TINY, vocab_size=30, context_length=512, embedding_dim=768, ffn_dim=3072, num_layers=1
    )
    theirs = {
        "embedding.weight": torch.randn(30, 768),
        "output_linear.bias": torch.zeros(30),
        "transformers.0.mha.attn_proj.0.weight": torch.zeros(2304, 768),
        "transformers.0.mha.attn_proj.0.bias": torch.zeros(2304),
    }
    for name, shape in {
        "input_norm": (768,),
        "mha_lnorm": (768,),
        "mha.out_linear": (768, 768),
        "pw_ff.pwff.0": (3072, 768),
        "pw_ff.pwff.2": (768, 3072),
    }.items():
        theirs[f"transformers.0.{name}.weight"] = torch.zeros(shape)
        theirs[f"transformers.0.{name}.bias"] = torch.zeros(shape[0])
    theirs["output_linear.weight"] = theirs["embedding.weight"]
    torch.save(theirs, tmp_path / "state_dict.pt")
    model = load_original(tmp_path / "state_dict.pt").model
    assert model.config == replace(config, num_heads=8, num_kv_heads=8)


def test_settings_and_tensors_that_differ_are_listed(saved) -> None:
    path = saved(state_dict(), vocab_size=50_262, n_layer=12)
    refused(path, r"vocab_size is 512 .* 50262 in .*num_layers is 3 in the file and 12")


def test_missing_and_extra_tensors_are_listed_by_their_own_names(saved) -> None:
    content = state_dict()
    del content["transformers.0.mha.out_linear.bias"], content["output_linear.bias"]
    content["final_norm.weight"] = torch.ones(64)
    refused(
        saved(content),
        r"output_linear.bias is missing, transformers.0.mha.out_linear.bias is missing, "
        r"final_norm.weight is unexpected",
    )


@pytest.mark.parametrize("shape", [(191, 64), (96, 64), (0, 64), (192,), ()])
def test_a_fused_matrix_of_another_shape_is_refused(saved, shape: tuple[int, ...]) -> None:
    refused(saved({**state_dict(), FUSED: torch.zeros(shape)}), r"attn_proj\.0\.weight")


def test_an_untied_output_is_refused(saved) -> None:
    content = state_dict()
    content["output_linear.weight"] = content["output_linear.weight"] * 2
    refused(saved(content), "output_linear.weight is not the same matrix as embedding.weight")


def test_weights_that_are_not_finite_are_refused(saved) -> None:
    content = state_dict()
    content["transformers.2.pw_ff.pwff.2.bias"][5] = float("inf")
    refused(saved(content), "blocks.2.feed_forward.down.bias holds NaN, infinity")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"n_head": 5}, "must be a multiple of 2"),
        ({"n_head": None}, "does not contain n_head"),
        ({"block_size": 10**8}, "context_length is 100000000"),
        ({"block_size": [3]}, r"block_size is \[3\]: it must be a positive whole number"),
        ({"p_dropout": -1.0}, "p_dropout is -1.0"),
    ],
)
def test_settings_of_no_model_are_refused(saved, settings: dict, match: str) -> None:
    refused(saved(state_dict(), **settings), match)


@pytest.mark.parametrize(
    ("name", "preset", "parameters"),
    [
        ("small", "toygpt-small", 123_705_942),
        ("midium", "toygpt-medium", 253_058_134),
        ("large", "toygpt-large", 1_311_585_366),
    ],
)
def test_a_published_config_and_its_tensors_are_those_of_the_preset(
    name: str, preset: str, parameters: int
) -> None:
    published, config = INFO["full"][f"toyGPT.{name}"], PRESETS[preset].model
    shown = {
        "vocab_size": 50_262,
        "embedding_dim": config.embedding_dim,
        "num_layers": config.num_layers,
    }
    assert CONFIGS["toygpt"](published["config"], shown) == config
    assert CONFIGS["toygpt"]({}, shown) == config
    with torch.device("meta"):
        model = Transformer(config)
    assert model.num_parameters == published["nb_parameters_vocab_50262_HEAD"] == parameters
    # A fused matrix and its bias are three of ours each; the output matrix is stored twice.
    num_tensors = len(model.state_dict()) + 1 - 4 * config.num_layers
    assert num_tensors == published["nb_state_dict_entries"]
