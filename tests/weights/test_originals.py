import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dimgpt.config import ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.weights.checkpoints import LAYOUTS
from dimgpt.weights.originals import is_original, load_original

FIXTURES = Path(__file__).parents[1] / "fixtures" / "dimensiongpt"
TINY = FIXTURES / "tiny.pt"
TINY_CONFIG = ModelConfig(
    vocab_size=512,
    context_length=64,
    window_size=16,
    embedding_dim=64,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    ffn_dim=170,
)


def state_dict() -> dict[str, torch.Tensor]:
    return dict(torch.load(TINY, weights_only=True))


def saved(tmp_path: Path, content: object, **options: bool) -> Path:
    path = tmp_path / "model.pt"
    torch.save(content, path, **options)
    return path


@pytest.fixture(scope="module")
def model() -> Transformer:
    return load_original(TINY, TINY_CONFIG).model


def test_the_logits_are_the_originals(model: Transformer) -> None:
    inputs = torch.from_numpy(np.load(FIXTURES / "inputs.npy"))
    extra = np.load(FIXTURES / "extra.npz")
    long_inputs = torch.from_numpy(extra["long_inputs"])[:, -TINY_CONFIG.context_length :]
    with torch.inference_mode():
        logits = model(inputs).numpy()
        short_logits = model(inputs[:, :10]).numpy()
        long_logits = model(long_inputs).numpy()
    np.testing.assert_allclose(logits, np.load(FIXTURES / "logits.npy"), atol=1e-4)
    np.testing.assert_allclose(logits[:, -1], extra["only_last"], atol=1e-4)
    np.testing.assert_allclose(short_logits, extra["short_10"], atol=1e-4)
    np.testing.assert_allclose(long_logits, extra["long_logits"], atol=1e-4)


def test_the_published_names_and_shapes_are_those_of_our_published_model() -> None:
    published = json.loads((FIXTURES / "state_dict_full.json").read_text())
    theirs = {name: tuple(shape) for name, shape in published["state_dict"]}
    output_shape = theirs.pop("final_linear.weight")
    layout = LAYOUTS["dimensiongpt"]
    with torch.device("meta"):
        model = Transformer(ModelConfig())
    ours = {layout.theirs(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert ours == theirs
    assert output_shape == theirs["token_embedding.weight"]
    assert model.num_parameters == published["nb_parameters"] == 208_929_792


def test_without_a_config_the_sizes_come_from_the_file(tmp_path: Path) -> None:
    config = ModelConfig(vocab_size=30, embedding_dim=64, num_layers=2, ffn_dim=21)
    theirs = {
        "token_embedding.weight": torch.randn(30, 64),
        "final_norm.weight": torch.ones(64),
    }
    for block in ("blocks.0", "blocks.1"):
        theirs[f"{block}.norm_1.weight"] = theirs[f"{block}.norm_2.weight"] = torch.ones(64)
        for name, shape in {
            "attention.query": (64, 64),
            "attention.key": (16, 64),
            "attention.value": (16, 64),
            "attention.projection": (64, 64),
            "feed_forward.linear_1": (21, 64),
            "feed_forward.linear_2": (21, 64),
            "feed_forward.linear_3": (64, 21),
        }.items():
            theirs[f"{block}.{name}.weight"] = torch.randn(shape)
    theirs["final_linear.weight"] = theirs["token_embedding.weight"]
    assert load_original(saved(tmp_path, theirs)).model.config == config


def test_a_compiled_models_prefix_and_the_old_file_format_are_read(tmp_path: Path) -> None:
    content = {f"_orig_mod.{name}": tensor for name, tensor in state_dict().items()}
    path = saved(tmp_path, content, _use_new_zipfile_serialization=False)
    loaded = load_original(path, TINY_CONFIG).model.state_dict()
    expected = load_original(TINY, TINY_CONFIG).model.state_dict()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_the_model_outlives_its_file(tmp_path: Path) -> None:
    path = saved(tmp_path, state_dict())
    model = load_original(path, TINY_CONFIG).model
    before = model(torch.arange(8)[None])
    path.write_bytes(b"")
    assert torch.equal(model(torch.arange(8)[None]), before)


def test_other_heads_than_the_published_ones_ask_for_a_config() -> None:
    with pytest.raises(ValueError, match=r"kv_dim is 32 in the file and 16.*pass config="):
        load_original(TINY)


def test_all_sizes_that_differ_are_listed() -> None:
    wrong = replace(TINY_CONFIG, vocab_size=513, ffn_dim=171, num_layers=4)
    with pytest.raises(ValueError, match=r"vocab_size is 512.*num_layers is 3.*ffn_dim is 170"):
        load_original(TINY, wrong)


def test_an_output_layer_of_its_own_is_refused(tmp_path: Path) -> None:
    content = state_dict()
    content["final_linear.weight"] = content["final_linear.weight"] + 1
    with pytest.raises(ValueError, match="not the same matrix"):
        load_original(saved(tmp_path, content), TINY_CONFIG)


def test_sizes_beside_a_whole_config_are_refused() -> None:
    with pytest.raises(ValueError, match="config and num_heads given"):
        load_original(TINY, TINY_CONFIG, sizes={"num_heads": 4})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    content = state_dict()
    content["blocks.1.norm_2.weight"][3] = bad
    with pytest.raises(ValueError, match=r"blocks.1.ffn_norm.weight holds NaN"):
        load_original(saved(tmp_path, content), TINY_CONFIG)


@pytest.mark.parametrize("name", ["blocks.2.norm_1.weight", "final_norm.weight"])
def test_a_missing_tensor_is_named(tmp_path: Path, name: str) -> None:
    content = state_dict()
    del content[name]
    with pytest.raises(ValueError, match=f"{name} is missing"):
        load_original(saved(tmp_path, content), TINY_CONFIG)


def test_an_unknown_tensor_is_named(tmp_path: Path) -> None:
    content = {**state_dict(), "blocks.0.attention.query.bias": torch.zeros(64)}
    with pytest.raises(ValueError, match=r"query.bias is unexpected"):
        load_original(saved(tmp_path, content), TINY_CONFIG)


class Attack:
    """Pickles to a call that writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_malicious_file_is_refused_and_nothing_of_it_runs(tmp_path: Path, is_zip: bool) -> None:
    target = tmp_path / "attacked"
    content = {**state_dict(), "attack": Attack(target)}
    path = saved(tmp_path, content, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ValueError, match="which was not run") as caught:
        load_original(path, TINY_CONFIG)
    assert "\n" not in str(caught.value)
    assert not target.exists()


@pytest.mark.parametrize(
    "content",
    [[1, 2], {"model": {"a": torch.zeros(2)}}, {"a": torch.zeros(2).to_sparse()}, {}, {3: 4}],
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(ValueError, match=r"no state dict|these are not the weights"):
        load_original(saved(tmp_path, content), TINY_CONFIG)


def test_damaged_files_are_refused_at_once(tmp_path: Path) -> None:
    whole = TINY.read_bytes()
    path = tmp_path / "model.pt"
    start = time.monotonic()
    for content in (b"", b"<html>", whole[: len(whole) // 2], whole[:-1], b"\x01" * 1000):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged or holds code"):
            load_original(path, TINY_CONFIG)
    assert time.monotonic() - start < 5


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such.pt is missing"):
        load_original(tmp_path / "no-such.pt")


@pytest.mark.parametrize(
    ("config", "belongs_to_another"),
    [
        (None, True),
        ('{"format": "dimgpt", "format_version": 1}', False),
        ('{"model_type": "llama"}', True),
        ('{"d_model": 512}', True),
        ("damaged", False),
    ],
)
def test_a_folder_with_a_checkpoint_is_anothers_unless_its_config_is_ours(
    tmp_path: Path, config: str | None, belongs_to_another: bool
) -> None:
    saved(tmp_path, state_dict())
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    assert is_original(tmp_path) is belongs_to_another
    (tmp_path / "second.pt").touch()
    assert is_original(tmp_path) is (config is not None and "model_type" in config)


def test_whose_a_file_is_shows_in_its_tensors(tmp_path: Path) -> None:
    heads = {"num_heads": 4, "num_kv_heads": 2}
    assert load_original(TINY, sizes=heads).system == "dimensiongpt"
    lillm = FIXTURES.parent / "lillm" / "best_model_sft_orig_mod.pt"
    assert load_original(lillm).system == "lillm"
    toygpt = FIXTURES.parent / "toygpt" / "state_dict.pt"
    assert load_original(toygpt, sizes={"num_heads": 4}).system == "toygpt"
    prefixed = {f"module._orig_mod.{name}": tensor for name, tensor in state_dict().items()}
    assert load_original(saved(tmp_path, prefixed), sizes=heads).system == "dimensiongpt"
    assert load_original(tmp_path, sizes=heads).system == "dimensiongpt"
