"""Weights of other systems: opened as they are, and taken over as model folders."""

import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dimgpt.cli import main
from dimgpt.config import ModelConfig
from dimgpt.files import sha256_of
from dimgpt.model.transformer import Transformer
from dimgpt.pipeline.models import import_model, open_model
from dimgpt.runtime import choose_runtime
from dimgpt.text.byte_level import ByteLevelTokenizer, train_byte_level
from dimgpt.weights.checkpoints import LAYOUTS
from dimgpt.weights.huggingface import LLAMA
from dimgpt.weights.layout import Layout
from dimgpt.weights.originals import load_original
from dimgpt.weights.store import load_model, load_tokenizer

pytestmark = pytest.mark.slow

FIXTURES = Path(__file__).parent / "fixtures"
SHARED = Path(__file__).parents[2] / "shared" / "fixtures"
VOCABULARY = FIXTURES / "dimensiongpt_sampling" / "vocab_512.txt"
LETTERS = random.Random(0)
WORDS = ["".join(LETTERS.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(300)]
TEXTS = [" ".join(WORDS)] * 3
IDS = torch.arange(32)[None]
CPU = choose_runtime("fp32", "cpu")


@pytest.fixture(scope="module")
def tokenizer() -> ByteLevelTokenizer:
    return train_byte_level(TEXTS, 512)


@pytest.fixture
def weights(tmp_path: Path, tokenizer: ByteLevelTokenizer) -> Path:
    """A checkpoint of lilLM beside its tokenizer, as downloaded."""
    folder = tmp_path / "download"
    folder.mkdir()
    shutil.copy(FIXTURES / "lillm" / "best_model_sft_orig_mod.pt", folder / "tiny.pt")
    tokenizer.save(folder / "tokenizer.json")
    return folder / "tiny.pt"


def files_of(folder: Path) -> dict[Path, str]:
    return {path: sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def complaint(*words: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["import", *map(str, words)])
    assert isinstance(stop.value.code, str)
    assert "\n" not in stop.value.code
    return stop.value.code


def test_an_imported_model_is_the_original(
    weights: Path, tokenizer: ByteLevelTokenizer, tmp_path: Path, capsys
) -> None:
    main(["import", str(weights), "--models-root", str(tmp_path / "models")])
    shown = capsys.readouterr().out
    assert "217,536" in shown
    folder = tmp_path / "models" / "tiny"
    assert torch.equal(load_model(folder)(IDS), load_original(weights).model(IDS))
    assert load_tokenizer(folder).tokens == tokenizer.tokens
    assert "| Imported from | lilLM (tiny.pt) |" in (folder / "README.md").read_text()
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "model.safetensors", "tokenizer.json", "README.md", "card.json")
    }


def test_importing_again_changes_nothing(weights: Path, tmp_path: Path) -> None:
    folder = import_model(weights, models_root=tmp_path / "models")
    before = files_of(folder)
    assert import_model(weights, models_root=tmp_path / "models") == folder
    assert files_of(folder) == before


def test_an_import_of_a_version_that_knew_less_of_dropout_is_the_same_import(
    weights: Path, tmp_path: Path
) -> None:
    folder = import_model(weights, models_root=tmp_path)
    content = json.loads((folder / "config.json").read_bytes())
    for name in ("dropout_places", "attention_dropout"):
        del content["model"][name]
    (folder / "config.json").write_text(json.dumps(content))
    before = files_of(tmp_path)
    assert import_model(weights, models_root=tmp_path) == folder
    assert files_of(tmp_path) == before


def test_what_a_folder_holds_is_never_overwritten(weights: Path, tmp_path: Path) -> None:
    root = tmp_path / "models"
    folder = import_model(weights, models_root=root)
    other = root / "notes"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    (root / "file").write_text("mine")
    before = files_of(root)
    content = torch.load(FIXTURES / "toygpt" / "state_dict.pt", weights_only=True)
    torch.save({"state_dict": content, "hyper_parameters": {"n_head": 4}}, tmp_path / "toy.ckpt")
    later = load_original(weights).model
    torch.nn.init.ones_(later.blocks[1].ffn_norm.weight)
    tensors = theirs(later, LAYOUTS["lillm"])
    tensors["lm_head.weight"] = tensors["tok_emb.weight"]
    settings = {"d_model": 64, "n_layers": 3, "q_heads": 4, "kv_heads": 2, "max_seq_len": 64}
    torch.save({"model": tensors, "config": {**settings, "vocab_size": 512}}, tmp_path / "later.pt")
    tokens = ("--tokenizer", weights.parent / "tokenizer.json")
    for words in (
        (tmp_path / "toy.ckpt", "--name", "tiny", *tokens),
        (tmp_path / "later.pt", "--name", "tiny", *tokens),
        (weights, "--name", "notes"),
        (weights, "--name", "file"),
    ):
        message = complaint(*words, "--models-root", root)
        assert "exists and has another content: choose another --name" in message
    assert files_of(root) == before
    assert import_model(weights, models_root=root, name="other") != folder


def test_what_an_interrupted_import_left_does_not_stand_in_the_way(
    weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "models" / "tiny" / ".saving").mkdir(parents=True)
    folder = import_model(weights, models_root=tmp_path / "models")
    assert load_model(folder).config.vocab_size == 512
    assert not (folder / ".saving").exists()


def test_a_refused_import_leaves_nothing(weights: Path, tmp_path: Path) -> None:
    root = tmp_path / "models"
    content = torch.load(FIXTURES / "toygpt" / "state_dict.pt", weights_only=True)
    content["embedding.weight"] = content["embedding.weight"] * float("nan")
    content["output_linear.weight"] = content["embedding.weight"]
    torch.save({"state_dict": content, "hyper_parameters": {"n_head": 4}}, tmp_path / "nan.ckpt")
    (tmp_path / "page.pt").write_text("<html>")
    for path, match in (
        (tmp_path / "nan.ckpt", "holds NaN"),
        (tmp_path / "page.pt", "an HTML page"),
        (tmp_path / "nothing.pt", "nothing.pt is missing"),
    ):
        assert match in complaint(path, "--models-root", root, "--no-use-tokenizer")
    assert not root.exists()


def test_a_tokenizer_is_asked_for_and_must_fit(weights: Path, tmp_path: Path) -> None:
    root = ("--models-root", tmp_path / "models")
    other = tmp_path / "other" / "tokenizer.json"
    train_byte_level(TEXTS, 400).save(other)
    assert "has 400 tokens, the model 512" in complaint(weights, *root, "--tokenizer", other)
    other.write_text('{"model": {"type": "WordPiece"}}')
    assert "--tokenizer takes another, --no-use-tokenizer none" in complaint(
        weights, *root, "--tokenizer", other
    )
    (weights.parent / "tokenizer.json").unlink()
    assert "no tokenizer next to" in complaint(weights, *root)
    (weights.parent / "vocab.txt").write_bytes(b"\xff\xfe")
    assert "vocab.txt" in complaint(weights, *root)
    (weights.parent / "vocab.txt").unlink()
    main(["import", str(weights), *map(str, root), "--no-use-tokenizer"])
    with pytest.raises(ValueError, match="saved without"):
        load_tokenizer(tmp_path / "models" / "tiny")


@pytest.mark.parametrize("name", ["../up", ".hidden", "", "a/b", "demo-runs"])
def test_names_of_no_folder_are_refused(weights: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name is"):
        import_model(weights, models_root=tmp_path / "models", name=name)


def test_a_tokenizer_may_lie_in_a_folder_of_its_own(
    weights: Path, tmp_path: Path, tokenizer: ByteLevelTokenizer
) -> None:
    (weights.parent / "tokenizer").mkdir()
    (weights.parent / "tokenizer.json").rename(weights.parent / "tokenizer" / "tokenizer.json")
    model, opened = open_model(weights, runtime=CPU)
    assert opened.tokens == tokenizer.tokens
    assert torch.equal(model(IDS), load_original(weights).model(IDS))


def test_a_folder_with_one_checkpoint_opens_as_the_checkpoint(weights: Path) -> None:
    model, _ = open_model(weights.parent, runtime=CPU)
    assert torch.equal(model(IDS), load_original(weights).model(IDS))


@pytest.mark.parametrize(
    ("size", "added"),
    [
        (507, ("<pad>", "<msk>", "<cls>", "<sep>", "<|startoftext|>")),
        (510, ("<pad>", "<|startoftext|>")),
    ],
)
def test_toygpts_tokens_are_added_to_those_of_gpt2(
    tmp_path: Path, size: int, added: tuple[str, ...]
) -> None:
    gpt2 = train_byte_level(TEXTS, size, special_tokens=("<|endoftext|>",))
    gpt2.save(tmp_path / "gpt2" / "tokenizer.json")
    content = torch.load(FIXTURES / "toygpt" / "state_dict.pt", weights_only=True)
    settings = {"n_head": 4, "block_size": 64}
    torch.save({"state_dict": content, "hyper_parameters": settings}, tmp_path / "toy.ckpt")
    folder = import_model(
        tmp_path / "toy.ckpt",
        models_root=tmp_path / "models",
        tokenizer_path=tmp_path / "gpt2" / "tokenizer.json",
    )
    tokenizer = load_tokenizer(folder)
    assert tokenizer.tokens == (*gpt2.tokens, *added)
    assert tokenizer.special_tokens.start_of_text == 511
    assert tokenizer.special_tokens.end_of_text == 0
    assert torch.equal(load_model(folder)(IDS), load_original(tmp_path / "toy.ckpt").model(IDS))


def theirs(model: Transformer, layout: Layout) -> dict[str, torch.Tensor]:
    return {layout.theirs(name): tensor for name, tensor in model.state_dict().items()}


def test_dimensiongpts_vocabulary_is_found_beside_the_weights_or_in_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ModelConfig(vocab_size=512, embedding_dim=64, num_layers=1, ffn_dim=32)
    tensors = theirs(Transformer(config), LAYOUTS["dimensiongpt"])
    tensors["final_linear.weight"] = tensors["token_embedding.weight"]
    (tmp_path / "weights").mkdir()
    torch.save(tensors, tmp_path / "weights" / "DimensionGPT.pt")
    monkeypatch.chdir(tmp_path)
    path = Path("weights/DimensionGPT.pt")
    with pytest.raises(FileNotFoundError, match="no tokenizer next to"):
        import_model(path)
    for place in ("data", "weights"):
        Path(place).mkdir(exist_ok=True)
        shutil.copy(VOCABULARY, Path(place) / "vocab.txt")
        assert import_model(path) == Path("models/DimensionGPT")
        shutil.rmtree("models")
        Path(place, "vocab.txt").unlink()


def test_a_hugging_face_folder_is_imported_without_transformers(
    tmp_path: Path, tokenizer: ByteLevelTokenizer
) -> None:
    config = ModelConfig(
        vocab_size=512, window_size=None, embedding_dim=64, num_layers=1, ffn_dim=32
    )
    folder = tmp_path / "Tiny-Llama"
    folder.mkdir()
    layout = LLAMA
    save_file(theirs(Transformer(config), layout), folder / "model.safetensors")
    settings = {
        "model_type": "llama",
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    tokenizer.save(folder / "tokenizer.json")
    opened, _ = open_model(folder, runtime=CPU)
    assert opened.config == config
    short = ("--context-length", "64", "--models-root", str(tmp_path / "models"))
    main(["import", str(folder), *short])
    assert load_model(tmp_path / "models" / "Tiny-Llama").config == replace(
        config, context_length=64
    )
    assert "num_heads given" in complaint(folder, "--num-heads", 4)


def test_sizes_that_a_file_does_not_say_are_given(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "dimensiongpt" / "tiny.pt", tmp_path / "tiny.pt")
    shutil.copy(VOCABULARY, tmp_path / "vocab.txt")
    sizes = {"num_heads": 4, "num_kv_heads": 2, "window_size": 16, "context_length": 64}
    words = [f"--{name.replace('_', '-')}={size}" for name, size in sizes.items()]
    main(["import", str(tmp_path / "tiny.pt"), *words, "--models-root", str(tmp_path / "models")])
    config = load_model(tmp_path / "models" / "tiny").config
    assert {name: getattr(config, name) for name in sizes} == sizes
    toy = FIXTURES / "toygpt" / "state_dict.pt"
    original = load_original(toy, sizes={"num_heads": 4, "context_length": 64})
    assert (original.model.config.num_heads, original.model.config.context_length) == (4, 64)
    with pytest.raises(ValueError, match="window_size is 8: models of this system have no such"):
        load_original(toy, sizes={"num_heads": 4, "window_size": 8})
    with pytest.raises(ValueError, match="context_length is 32: .* says 64; leave it out"):
        load_original(
            FIXTURES / "lillm" / "best_model_sft_orig_mod.pt", sizes={"context_length": 32}
        )


def test_an_original_writes_with_a_tokenizer_from_elsewhere(
    weights: Path, tokenizer: ByteLevelTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = tmp_path / "elsewhere.json"
    (weights.parent / "tokenizer.json").rename(other)
    words = ["--prompt", "the cat", "--sampling.max-new-tokens", "3", "--tokenizer", str(other)]
    for flags in ([], ["--use-int8"]):
        main(["generate", "--model", str(weights), *words, *flags])
        assert capsys.readouterr().out.startswith("the cat")
    root = tmp_path / "models"
    bare = import_model(weights, models_root=root, use_tokenizer=False)
    with pytest.raises(SystemExit, match="saved without a tokenizer: give one with --tokenizer"):
        main(["generate", "--model", str(bare), *words[:4]])
    main(["generate", "--model", str(bare), *words])
    small = tmp_path / "small.txt"
    small.write_bytes(b"\n".join(VOCABULARY.read_bytes().split(b"\n")[:-1]))
    with pytest.raises(SystemExit, match="has 511 tokens, the model in .* 512: take the tokenizer"):
        main(["export", str(bare), "--to", "pt", "--tokenizer", str(small)])
    main(["export", str(bare), "--to", "safetensors", "--tokenizer", str(other)])
    assert load_tokenizer(root / "tiny-safetensors").tokens == tokenizer.tokens


def test_a_name_that_is_no_text_is_named_and_not_called_damage(
    weights: Path, tmp_path: Path
) -> None:
    odd = weights.with_name(os.fsdecode(b"m\xe9l.pt"))
    shutil.copy(weights, odd)
    words = ("--name", "new", "--models-root", tmp_path / "models")
    assert "is not UTF-8: rename it" in complaint(odd, *words)
    assert "names folders" in complaint(weights, "--name", "a\nb")


def test_the_card_of_a_bare_model_promises_no_text(weights: Path, tmp_path: Path) -> None:
    bare = import_model(weights, models_root=tmp_path / "models", use_tokenizer=False)
    text = (bare / "README.md").read_text("utf-8")
    assert "load_tokenizer" not in text
    assert "made with dimgpt" not in text
    assert "the licence of their publisher" in text


def test_a_model_folder_of_ours_is_not_imported(weights: Path, tmp_path: Path) -> None:
    folder = import_model(weights, models_root=tmp_path / "models")
    assert "use it without importing it" in complaint(folder, "--models-root", tmp_path / "models")


def test_an_original_writes_as_it_is(weights: Path, capsys) -> None:
    words = ["--prompt", "the cat", "--sampling.max-new-tokens", "3"]
    main(["generate", "--model", str(weights), *words])
    assert capsys.readouterr().out.startswith("the cat")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs lilLM's own tokenizer, not ours to copy")
def test_lillms_tokenizer_keeps_its_first_space_in_the_model_folder(
    tmp_path: Path, encode_template
) -> None:
    config = ModelConfig(
        vocab_size=8192,
        context_length=64,
        window_size=None,
        embedding_dim=64,
        num_layers=1,
        num_heads=4,
        num_kv_heads=2,
        ffn_dim=256,
    )
    tensors = theirs(Transformer(config), LAYOUTS["lillm"])
    tensors["lm_head.weight"] = tensors["tok_emb.weight"]
    settings = {"d_model": 64, "n_layers": 1, "q_heads": 4, "kv_heads": 2}
    torch.save({"model": tensors, "config": settings}, tmp_path / "model.pt")
    folder = import_model(
        tmp_path / "model.pt",
        models_root=tmp_path / "models",
        tokenizer_path=SHARED / "lillm" / "tokenizer" / "tokenizer.json",
    )
    tokenizer = load_tokenizer(folder)
    cases = [json.loads(line) for line in (SHARED / "lillm" / "cases.jsonl").open()]
    assert isinstance(tokenizer, ByteLevelTokenizer)
    assert [encode_template(tokenizer, case["text"]) for case in cases] == [
        case["ids"] for case in cases
    ]
