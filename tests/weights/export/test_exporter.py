import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dimgpt.config import ExportConfig
from dimgpt.model.transformer import Transformer
from dimgpt.presets import get_preset
from dimgpt.settings import override
from dimgpt.text.byte_level import ByteLevelTokenizer
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.weights.card import Card
from dimgpt.weights.export import exporter, transformers_folder
from dimgpt.weights.export.exporter import export_model, write_original
from dimgpt.weights.originals import load_original
from dimgpt.weights.store import load_card, load_model, load_tokenizer

CARD = Card(name="tiny", facts={"Validation bits per byte": "1.234"})
TINY_PT = Path(__file__).parents[2] / "fixtures" / "dimensiongpt" / "tiny.pt"
TRANSFORMERS = ExportConfig(target="transformers")
IDS = torch.arange(20, 60)[None]


@pytest.fixture
def folder(tiny_model: Transformer, tokenizer: GreedyTokenizer, tmp_path: Path) -> Path:
    return export_model(tiny_model, tokenizer, tmp_path / "out", TRANSFORMERS, card=CARD)


def refused(
    model: Transformer, tokenizer: GreedyTokenizer, folder: Path, match: str, **changes: str
) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    config = ExportConfig(**{"target": "transformers", **changes})
    with pytest.raises(ValueError, match=match) as caught:
        export_model(model, tokenizer, folder, config, card=CARD)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_every_export_has_a_card_and_a_record_of_its_files(folder: Path) -> None:
    text = (folder / "README.md").read_text("utf-8")
    assert "| Validation bits per byte | 1.234 |" in text
    assert "AutoModelForCausalLM" in text
    record = json.loads((folder / "export.json").read_text("utf-8"))
    names = {path.name for path in folder.iterdir()}
    assert {*record["sha256"], "export.json"} == names


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_a_plain_copy_is_a_model_folder_of_ours(
    tiny_model: Transformer, tokenizer: GreedyTokenizer, tmp_path: Path, dtype: str
) -> None:
    config = ExportConfig(target="safetensors", dtype=dtype)
    folder = export_model(
        tiny_model, tokenizer, tmp_path / "copy", config, card=CARD, curves=b"picture"
    )
    weight = tiny_model.token_embedding.weight
    kinds = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
    loaded = load_model(folder).token_embedding.weight
    assert torch.equal(loaded, weight.to(kinds[dtype]).float())
    assert load_tokenizer(folder).tokens == tokenizer.tokens
    assert load_card(folder) == (CARD, b"picture")


@pytest.mark.slow
def test_an_older_export_of_the_model_is_replaced(
    tiny_model: Transformer, tokenizer: GreedyTokenizer, folder: Path
) -> None:
    (folder / "config.json").write_text("{}")
    export_model(tiny_model, tokenizer, folder, TRANSFORMERS, card=CARD)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "mistral"
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


@pytest.mark.slow
def test_what_is_no_export_of_the_model_stays(
    tiny_model: Transformer, tokenizer: GreedyTokenizer, folder: Path, tmp_path: Path
) -> None:
    refused(tiny_model, tokenizer, folder, "no export of tiny.*--output", target="pt")
    (folder / "notes.txt").write_text("mine")
    refused(tiny_model, tokenizer, folder, "holds notes.txt, so it is not overwritten.*--output")
    (folder / "notes.txt").unlink()
    for content in ("[]", "{", '{"sha256": []}', '{"format": "other", "sha256": {}}'):
        (folder / "export.json").write_text(content)
        refused(tiny_model, tokenizer, folder, "it is not overwritten")
    (tmp_path / "file").write_text("mine")
    refused(tiny_model, tokenizer, tmp_path / "file", "it is not overwritten")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_an_export_of_another_model_stays(
    tiny_model: Transformer, tokenizer: GreedyTokenizer, folder: Path
) -> None:
    other = Card(name="other")
    with pytest.raises(ValueError, match="no export of other"):
        export_model(tiny_model, tokenizer, folder, TRANSFORMERS, card=other)


@pytest.mark.parametrize(("bad", "match"), [(float("nan"), "NaN"), (1e6, "1e\\+06, too large")])
def test_weights_that_are_no_numbers_there_are_refused(
    llama_model: Transformer, tmp_path: Path, tokenizer: GreedyTokenizer, bad: float, match: str
) -> None:
    model = Transformer(llama_model.config)
    with torch.no_grad():
        model.blocks[1].feed_forward.down.weight[3, 4] = bad
    config = ExportConfig(target="transformers", dtype="f16")
    small = GreedyTokenizer(tokenizer.tokens[:300])
    with pytest.raises(ValueError, match=f"blocks.1.feed_forward.down.weight holds.*{match}"):
        export_model(model, small, tmp_path / "out", config, card=CARD)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_or_the_older_export(
    tiny_model: Transformer,
    tokenizer: GreedyTokenizer,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(tensors: object, path: Path, **options: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(transformers_folder, "save_file", fail)
    for target in (folder, tmp_path / "new"):
        with pytest.raises(OSError, match="No space left"):
            export_model(tiny_model, tokenizer, target, TRANSFORMERS, card=CARD)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_an_interruption_leaves_nothing_half(
    tiny_model: Transformer,
    tokenizer: GreedyTokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporter, "sha256_of", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_model(tiny_model, tokenizer, tmp_path / "out", TRANSFORMERS, card=CARD)
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_of_another_size_is_refused(
    llama_model: Transformer, tokenizer: GreedyTokenizer, tmp_path: Path
) -> None:
    refused(llama_model, tokenizer, tmp_path / "out", "512 tokens, the model 300")


@pytest.mark.parametrize(
    ("target", "dtype"), [("transformers", "q8_0"), ("pt", "f16"), ("safetensors", "q8_0")]
)
def test_a_precision_that_the_target_lacks_is_refused(target: str, dtype: str) -> None:
    with pytest.raises(ValueError, match=f"dtype is '{dtype}'"):
        ExportConfig(target=target, dtype=dtype)


def test_the_file_is_the_one_that_the_original_wrote(
    tiny_model: Transformer, tokenizer: GreedyTokenizer, tmp_path: Path
) -> None:
    write_original(tiny_model, tokenizer, tmp_path)
    theirs = torch.load(TINY_PT, weights_only=True)
    ours = torch.load(tmp_path / "model.pt", weights_only=True)
    assert sorted(ours) == sorted(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    output, embedding = ours["final_linear.weight"], ours["token_embedding.weight"]
    assert output.data_ptr() == embedding.data_ptr()
    assert GreedyTokenizer.load(tmp_path / "vocab.txt").tokens == tokenizer.tokens


def test_a_round_trip_gives_the_same_model(
    make_model: Callable[..., Transformer], tokenizer: GreedyTokenizer, tmp_path: Path
) -> None:
    model = make_model()
    usage = write_original(model, tokenizer, tmp_path)
    again = load_original(tmp_path / "model.pt", model.config).model
    ids = torch.arange(20, 60)[None]
    assert torch.equal(again(ids), model(ids))
    assert "import model.pt --context-length 64 --window-size 16 --num-heads 4" in usage.text


@pytest.mark.parametrize("target", ["transformers", "gguf", "pt"])
@pytest.mark.parametrize(
    ("part", "match"),
    [
        ({"logit_cap": 15.0}, "logit_cap is 15.0, not None"),
        ({"use_stream_scalars": True}, "use_stream_scalars is True, not False"),
        ({"use_value_embeddings": True}, "use_value_embeddings is True, not False"),
        ({"feed_forward": "relu2"}, "feed_forward is 'relu2', not 'swiglu'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_part_without_a_home_is_refused(
    make_model: Callable[..., Transformer],
    tokenizer: GreedyTokenizer,
    tmp_path: Path,
    target: str,
    part: dict[str, object],
    match: str,
) -> None:
    message = f"does not support this model: {match}; export it with --to safetensors$"
    refused(make_model(**part), tokenizer, tmp_path, message, target=target)
    export_model(
        make_model(**part), tokenizer, tmp_path, ExportConfig(target="safetensors"), card=CARD
    )
    assert (load_model(tmp_path)(IDS) - make_model(**part)(IDS)).abs().max() == 0


def test_layers_of_different_windows_are_refused_where_they_have_no_home(
    make_model: Callable[..., Transformer], tokenizer: GreedyTokenizer, tmp_path: Path
) -> None:
    model = make_model(attention_pattern=("window", "full"))
    pattern = r"for the attention_pattern \('window', 'full'\)"
    match = f"qk_norm is False, not True, {pattern}; export it with --to gguf or safetensors"
    refused(model, tokenizer, tmp_path, match)
    match = f"window_size is 16, not None, {pattern}; export it with --to gguf or safetensors"
    refused(model, tokenizer, tmp_path, match, target="pt")
    qwen = make_model(attention_pattern=("window", "full"), qk_norm=True)
    match = "qk_norm is True, not False, window_size is 16.*--to transformers or gguf or safetens"
    refused(qwen, tokenizer, tmp_path, match, target="pt")


@pytest.mark.parametrize(
    ("changes", "target", "match"),
    [
        ({}, "gguf", "num_experts is 4, not None; export it with --to transformers or safetensors"),
        ({}, "pt", "num_experts is 4, not None; export it with --to transformers or safetensors"),
        ({"experts_per_token": 1}, "transformers", "experts_per_token is 1, not 2 or more"),
        ({"use_shared_expert": True}, "transformers", "use_shared_expert is True, not False"),
        ({"qk_norm": True}, "transformers", "qk_norm is True, not False; .* --to safetensors$"),
        (
            {"attention_pattern": ("window", "full")},
            "transformers",
            "num_experts is 4, not None, for the attention_pattern",
        ),
    ],
    ids=str,
)
def test_experts_without_a_home_are_refused(
    make_model: Callable[..., Transformer],
    tokenizer: GreedyTokenizer,
    tmp_path: Path,
    changes: dict[str, object],
    target: str,
    match: str,
) -> None:
    refused(make_model(num_experts=4, **changes), tokenizer, tmp_path, match, target=target)


@pytest.mark.slow
def test_a_model_with_experts_has_each_in_matrices_of_its_own_and_a_card_that_counts_them(
    make_model: Callable[..., Transformer], tokenizer: GreedyTokenizer, tmp_path: Path
) -> None:
    model = make_model(num_experts=4)
    folder = export_model(model, tokenizer, tmp_path / "hub", TRANSFORMERS, card=CARD)
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.2.block_sparse_moe.experts.3.w2.weight"
    assert torch.equal(tensors[name], model.blocks[2].feed_forward.down.weight[3])
    text = (folder / "README.md").read_text("utf-8")
    assert "| Active parameters |" in text
    assert r"num\_experts=4" in text


def test_a_copy_of_a_model_with_experts_opens_as_it_was(
    make_model: Callable[..., Transformer], tokenizer: GreedyTokenizer, tmp_path: Path
) -> None:
    model = make_model(num_experts=4, use_shared_expert=True)
    config = ExportConfig(target="safetensors")
    folder = export_model(model, tokenizer, tmp_path / "copy", config, card=CARD)
    again = load_model(folder)
    assert again.config == model.config
    assert torch.equal(again(IDS), model(IDS))


@pytest.mark.slow
def test_a_pattern_of_equal_layers_goes_where_one_window_goes(
    make_model: Callable[..., Transformer], tokenizer: GreedyTokenizer, tmp_path: Path
) -> None:
    model = make_model(attention_pattern=("full", "full"))
    folder = export_model(model, tokenizer, tmp_path / "hub", TRANSFORMERS, card=CARD)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"
    usage = write_original(model, tokenizer, tmp_path)
    assert "--window-size 64" in usage.text  # the context, which is no window


@pytest.mark.parametrize(
    "changes",
    [{"norm_eps": 1e-6}, {"tie_embeddings": False}, {"use_final_norm": False}, {"norm": "layer"}],
)
def test_other_parts_are_refused_by_name(
    make_model: Callable[..., Transformer],
    tokenizer: GreedyTokenizer,
    tmp_path: Path,
    changes: dict[str, object],
) -> None:
    with pytest.raises(ValueError, match=f"not support this model: {next(iter(changes))} is"):
        export_model(
            make_model(**changes), tokenizer, tmp_path, ExportConfig(target="pt"), card=CARD
        )


def test_a_byte_level_tokenizer_is_refused(
    make_model: Callable[..., Transformer], llama_tokenizer: ByteLevelTokenizer, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"a tokenizer.json.*reads a vocab.txt only"):
        write_original(make_model(vocab_size=300), llama_tokenizer, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["transformers", "gguf"])
def test_a_modern_model_opens_elsewhere_and_a_part_without_a_home_is_named(
    tokenizer: GreedyTokenizer, tmp_path: Path, target: str
) -> None:
    pytest.importorskip("gguf", reason="gguf is not installed")
    shape = {"embedding_dim": 16, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "ffn_dim": 24}
    modern = override(
        get_preset("french-5m-modern").model,
        vocab_size=tokenizer.vocab_size,
        context_length=64,
        window_size=16,
        **shape,
    )
    config = ExportConfig(target=target)
    folder = export_model(Transformer(modern), tokenizer, tmp_path / "modern", config, card=CARD)
    assert (folder / "README.md").is_file()
    model = Transformer(override(modern, feed_forward="relu2"))
    refused(model, tokenizer, tmp_path / "relu2", "relu2", target=target)
