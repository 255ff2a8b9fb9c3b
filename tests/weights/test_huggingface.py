"""Folders that `transformers` writes, opened without it, give its logits."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dimgpt.weights.huggingface import load_huggingface
from dimgpt.weights.originals import is_original, load_original

transformers = pytest.importorskip("transformers", reason="needs pip install transformers")
SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "pad_token_id": None,
}
IDS = torch.arange(48).view(2, 24)
WINDOWS = {"head_dim": 8, "use_sliding_window": True, "sliding_window": 5}
# Large enough that a wrong order of channels, window or base shows.
WEIGHT_STD = 0.3


def build(kind: str, **changes: object) -> torch.nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        **{**SIZES, "initializer_range": WEIGHT_STD, **changes}
    )
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    return model.eval()


def require_same_logits(folder: Path, theirs: torch.nn.Module, *, tolerance: float = 1e-4) -> None:
    ours = load_huggingface(folder)
    with torch.inference_mode():
        expected = theirs(IDS).logits
        torch.testing.assert_close(ours(IDS), expected.float(), atol=tolerance, rtol=0)
    assert not ours.training
    assert sum(weight.numel() for weight in theirs.parameters()) == ours.num_parameters


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    build("Llama").save_pretrained(folder)
    return folder


@pytest.fixture
def qwen3(tmp_path: Path) -> Path:
    """One layer without a window, one with."""
    build("Qwen3", **WINDOWS, max_window_layers=1).save_pretrained(tmp_path / "qwen3")
    return tmp_path / "qwen3"


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "llama")
    return tmp_path / "llama"


def change(folder: Path, *without: str, **settings: object) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text()) | settings
    path.write_text(json.dumps({name: content[name] for name in content if name not in without}))


def refused(folder: Path, match: str, kind: type[Exception] = ValueError) -> None:
    with pytest.raises(kind, match=match) as caught:
        load_huggingface(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("Llama", {}),
        ("Llama", {"tie_word_embeddings": True}),
        ("Llama", {"num_key_value_heads": 4, "rms_norm_eps": 1e-2}),
        ("Llama", {"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}}),
        ("Mistral", {"sliding_window": 5}),
        ("Mistral", {"sliding_window": 5, "num_key_value_heads": 1, "tie_word_embeddings": True}),
        ("Mistral", {"sliding_window": None}),
        ("Qwen3", {"head_dim": 8}),
        ("Qwen3", {"head_dim": 8, "sliding_window": 5}),  # which it does not use
        ("Qwen3", {**WINDOWS, "max_window_layers": 1, "tie_word_embeddings": True}),
        ("Qwen3", {**WINDOWS, "max_window_layers": 0, "num_key_value_heads": 1}),
    ],
)
def test_the_logits_are_those_of_transformers(tmp_path: Path, kind: str, changes: dict) -> None:
    theirs = build(kind, **changes)
    theirs.save_pretrained(tmp_path)
    require_same_logits(tmp_path, theirs)
    assert load_original(tmp_path).system == "huggingface"


@pytest.mark.slow
def test_a_model_in_several_files_is_read(tmp_path: Path) -> None:
    theirs = build("Mistral", sliding_window=7)
    theirs.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    require_same_logits(tmp_path, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    theirs = build("Llama").to(dtype)
    theirs.save_pretrained(tmp_path)
    widened = type(theirs).from_pretrained(tmp_path, dtype=torch.float32).eval()
    require_same_logits(tmp_path, widened)


def test_the_window_does_not_count_the_current_token(tmp_path: Path) -> None:
    build("Mistral", sliding_window=5).save_pretrained(tmp_path)
    assert load_huggingface(tmp_path).config.window_size == 4


@pytest.mark.parametrize(
    ("layers", "pattern"),
    [
        ("ssss", ("window",)),
        ("ffff", ("full",)),
        ("sfsf", ("window", "full")),
        ("ssfs", ("window", "window", "full")),  # cut in the second repetition
        ("fffs", ("full", "full", "full", "window")),
    ],
)
def test_the_layers_of_a_qwen3_become_the_shortest_pattern(
    tmp_path: Path, layers: str, pattern: tuple[str, ...]
) -> None:
    names = {"s": "sliding_attention", "f": "full_attention"}
    kinds = [names[letter] for letter in layers]
    build("Qwen3", **WINDOWS, num_hidden_layers=4, layer_types=kinds).save_pretrained(tmp_path)
    config = load_huggingface(tmp_path).config
    assert config.attention_pattern == pattern
    assert config.window_size == 4
    assert config.qk_norm


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"layer_types": None}, "layer_types is None: it must be a list of 2 names"),
        ({"layer_types": ["full_attention"]}, "a list of 2 names, each full_attention or sliding_"),
        ({"layer_types": ["full_attention", "chunked"]}, "'chunked'.*full_attention or sliding_"),
        ({"layer_types": "full_attention"}, "layer_types is 'full_attention': it must be"),
        ({"layer_types": [[], {}]}, r"layer_types is \[\[\], \{\}\]: it must be"),
        ({"use_sliding_window": False}, "a list of 2 names, each full_attention; save"),
        ({"sliding_window": None}, "a list of 2 names, each full_attention; save"),
        ({"use_sliding_window": "yes"}, "use_sliding_window is 'yes': it must be true or false"),
        ({"sliding_window": "5"}, "sliding_window is '5'"),
        ({"sliding_window": 1}, "window_size is 0"),
        ({"head_dim": 16}, "head_dim is 16: here it must be"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"num_hidden_layers": 10**9}, "a list of 1000000000 names"),
        ({"num_hidden_layers": 10**9, "layer_types": None, "use_sliding_window": False}, "2 in"),
        ({"model_type": "mistral"}, "layer_types differ"),
        ({"model_type": "llama", "layer_types": None}, "sliding_window is set"),
        ({"model_type": "mistral", "layer_types": None}, "q_norm.weight is unexpected"),
    ],
    ids=str,
)
def test_layers_of_a_qwen3_that_have_no_place_here_are_refused(
    qwen3: Path, settings: dict[str, object], match: str
) -> None:
    change(qwen3, **settings)
    refused(qwen3, match)


def test_the_base_of_older_configs_is_read(folder: Path) -> None:
    change(folder, "rope_parameters", rope_theta=77.0, rope_scaling=None)
    assert load_huggingface(folder).config.rope_theta == 77.0
    change(folder, "rope_theta")
    assert load_huggingface(folder).config.rope_theta == 10_000.0


def test_the_defaults_are_those_of_transformers(folder: Path) -> None:
    for kind, name in (("llama", "LlamaConfig"), ("mistral", "MistralConfig")):
        config = getattr(transformers, name)()
        assert config.hidden_act == "silu"
        assert config.tie_word_embeddings is False
        change(folder, "max_position_embeddings", "rms_norm_eps", model_type=kind)
        ours = load_huggingface(folder).config
        assert ours.context_length == config.max_position_embeddings
        assert ours.norm_eps == config.rms_norm_eps
        assert ours.window_size == (getattr(config, "sliding_window", None) or 0) - 1 or (
            ours.window_size is None and kind == "llama"
        )


def test_the_defaults_of_a_qwen3_are_those_of_transformers(qwen3: Path) -> None:
    config = transformers.Qwen3Config(use_sliding_window=True)
    change(qwen3, "max_position_embeddings", "rms_norm_eps", "sliding_window")
    ours = load_huggingface(qwen3).config
    assert ours.context_length == config.max_position_embeddings
    assert ours.norm_eps == config.rms_norm_eps
    assert ours.window_size == config.sliding_window - 1
    change(qwen3, "use_sliding_window", "layer_types", "max_window_layers")
    assert load_huggingface(qwen3).config.window_size is None
    assert not transformers.Qwen3Config().use_sliding_window
    change(qwen3, "head_dim")
    refused(qwen3, f"head_dim is {config.head_dim}")
    change(qwen3, "num_key_value_heads", head_dim=8)
    refused(qwen3, f"num_kv_heads is {config.num_key_value_heads}")


def test_the_context_can_be_shortened(folder: Path) -> None:
    short = load_huggingface(folder, context_length=24)
    assert short.config.context_length == 24
    assert torch.equal(short(IDS), load_huggingface(folder)(IDS))
    for wrong in (0, 33):
        with pytest.raises(ValueError, match=r"it must lie in 1\.\.32"):
            load_huggingface(folder, context_length=wrong)


def test_a_tied_output_may_be_stored_if_it_is_the_embedding(folder: Path) -> None:
    change(folder, tie_word_embeddings=True)
    refused(folder, "lm_head.weight is not the same matrix as model.embed_tokens.weight")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    assert load_huggingface(folder).config.tie_embeddings


def test_tables_that_older_files_repeat_are_left_aside(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)
    save_file(tensors, folder / "model.safetensors")
    load_huggingface(folder)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"model_type": "qwen2"}, "model_type is 'qwen2': llama, mistral and qwen3"),
        ({"model_type": ["llama"]}, r"model_type is \['llama'\]"),
        ({"attention_bias": True, "mlp_bias": True}, "attention_bias is True.*mlp_bias is True"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope_type is 'llama3'"),
        ({"rope_scaling": {"type": "linear"}, "rope_parameters": None}, "rope_type is 'linear'"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling is {'type': 'linear'}"),
        ({"rope_parameters": {"full_attention": {}}}, "rope_parameters is"),
        ({"rope_parameters": "yes"}, "rope_parameters is 'yes'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"sliding_window": 8}, "sliding_window is set"),
        ({"head_dim": 16}, "head_dim is 16: here it must be"),
        ({"num_attention_heads": 5, "head_dim": None}, "head_dim is 6"),
        ({"num_attention_heads": 10**9, "head_dim": None}, "head_dim is 1"),
        ({"vocab_size": 61}, "vocab_size is 60 in the file and 61 in the config"),
        ({"num_hidden_layers": 10**9}, "num_layers is 2 in the file and 1000000000"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers is '2'"),
        ({"num_key_value_heads": 3}, "must divide num_heads"),
        ({"max_position_embeddings": 10**9}, "context_length is 1000000000"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        ({"rms_norm_eps": -1}, "rms_norm_eps is -1"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps is 1000"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_the_transformer_does_not_do_is_refused_by_name(
    folder: Path, settings: dict[str, object], match: str
) -> None:
    change(folder, **settings)
    refused(folder, match)


def test_layers_of_several_kinds_are_refused(tmp_path: Path) -> None:
    build("Mistral", sliding_window=5).save_pretrained(tmp_path)
    change(tmp_path, layer_types=["sliding_attention", "full_attention"])
    refused(tmp_path, "layer_types differ")


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 100_000, '{"a": 1'])
def test_a_damaged_config_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    refused(folder, "config.json holds no JSON object")
    assert not is_original(folder)


def test_missing_and_extra_tensors_are_listed(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"], tensors["lm_head.weight"]
    tensors["model.layers.1.self_attn.q_proj.bias"] = torch.zeros(32)
    tensors["model.layers.0.self_attn.q_proj.weight"] = torch.zeros(32, 31)
    save_file(tensors, folder / "model.safetensors")
    refused(
        folder,
        r"lm_head.weight is missing.*1.mlp.up_proj.weight is missing.*q_proj.bias is unexpected"
        r".*q_proj.weight is \(32, 31\) instead of \(32, 32\)",
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8, torch.float8_e4m3fn])
def test_other_numbers_than_floats_of_the_usual_sizes_are_refused(
    folder: Path, dtype: torch.dtype
) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(32).to(dtype)
    save_file(tensors, folder / "model.safetensors")
    refused(folder, "model.norm.weight is stored as")


def test_weights_that_are_not_finite_are_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    refused(folder, "holds NaN")


def test_damaged_weights_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for content in (b"", b"<html>", whole[:-1], whole[: len(whole) // 2], b"\xff" + whole[1:]):
        path.write_bytes(content)
        refused(folder, "model.safetensors .* cannot be read")
    path.unlink()
    refused(folder, "model.safetensors is missing", FileNotFoundError)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    build("Llama").save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    return tmp_path / "shards"


def point(folder: Path, name: str, place: object) -> None:
    path = folder / "model.safetensors.index.json"
    content = json.loads(path.read_text())
    content["weight_map"][name] = place
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "place", ["../secret.safetensors", "/etc/passwd", "C:\\x.safetensors", "a/b.safetensors", ".."]
)
def test_an_index_that_leads_out_of_its_folder_is_refused(shards: Path, place: str) -> None:
    save_file({"model.norm.weight": torch.ones(32)}, shards.parent / "secret.safetensors")
    point(shards, "model.norm.weight", place)
    refused(shards, "names files outside its folder")


def test_an_index_must_agree_with_its_files(shards: Path) -> None:
    index = shards / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    other = next(place for place in places.values() if place != places["model.norm.weight"])
    point(shards, "model.norm.weight", other)
    refused(shards, "holds model.norm.weight, which .* does not place there")
    point(shards, "model.norm.weight", 3)
    refused(shards, "has no weight_map")
    index.write_text("{}")
    refused(shards, "has no weight_map")


def test_a_missing_shard_is_named(shards: Path) -> None:
    shard = sorted(shards.glob("*.safetensors"))[1]
    shard.unlink()
    refused(shards, f"{shard.name} is missing", FileNotFoundError)


def test_a_tensor_that_the_index_invents_is_missing(shards: Path) -> None:
    path = shards / "model.safetensors.index.json"
    content = json.loads(path.read_text())
    content["weight_map"]["model.layers.7.mlp.up_proj.weight"] = sorted(
        content["weight_map"].values()
    )[0]
    path.write_text(json.dumps(content))
    load_huggingface(shards)  # what counts is what the files hold
