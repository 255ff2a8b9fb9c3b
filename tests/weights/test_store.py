import contextlib
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dimgpt.config import ModelConfig
from dimgpt.files import sha256_of
from dimgpt.model.transformer import Transformer
from dimgpt.text.byte_level import LILLM_SPECIAL_TOKENS, train_byte_level
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.weights import store
from dimgpt.weights.card import Card
from dimgpt.weights.store import load_model, load_tokenizer, save_model

VOCABULARY = Path(__file__).parents[1] / "fixtures" / "dimensiongpt_sampling" / "vocab_512.txt"
CONFIG = ModelConfig(
    vocab_size=512,
    context_length=32,
    window_size=8,
    embedding_dim=16,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    ffn_dim=10,
)
IDS = torch.arange(20, 40)[None]


@pytest.fixture(scope="module")
def tokenizer() -> GreedyTokenizer:
    return GreedyTokenizer.load(VOCABULARY)


@pytest.fixture
def model() -> Transformer:
    return Transformer(CONFIG).eval()


@pytest.fixture
def folder(tmp_path: Path, model: Transformer, tokenizer: GreedyTokenizer) -> Path:
    save_model(model, tmp_path / "tiny", tokenizer)
    return tmp_path / "tiny"


def rewrite(folder: Path, tensors: dict[str, torch.Tensor], **model_fields: object) -> None:
    """Put other weights in a folder, and a config.json that agrees with them."""
    save_file(tensors, folder / "model.safetensors")
    content = json.loads((folder / "config.json").read_text())
    content["sha256"]["model.safetensors"] = sha256_of(folder / "model.safetensors")
    content["model"] |= model_fields
    (folder / "config.json").write_text(json.dumps(content))


def refused(folder: Path, match: str, kind: type[Exception] = ValueError) -> None:
    with pytest.raises(kind, match=match) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_a_loaded_model_is_the_saved_one(folder: Path, model: Transformer) -> None:
    loaded = load_model(folder)
    assert loaded.config == CONFIG
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.equal(loaded(IDS), model(IDS))


def test_a_loaded_model_can_be_trained(folder: Path) -> None:
    loaded = load_model(folder).train()
    loaded(IDS).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_a_model_folder_is_complete(folder: Path, tokenizer: GreedyTokenizer) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "vocab.txt", "README.md"}
    assert load_tokenizer(folder).tokens == tokenizer.tokens
    assert "token_embedding.weight" in load_file(folder / "model.safetensors")


def test_a_folder_says_which_of_two_chat_formats_its_tokenizer_writes(tmp_path: Path) -> None:
    special = (*LILLM_SPECIAL_TOKENS, "<|im_start|>", "<|im_end|>")
    tokenizer = train_byte_level(["a"], 274, special_tokens=special)
    model = Transformer(replace(CONFIG, vocab_size=274))
    for name in ("lillm", "chatml"):
        tokenizer.use_chat_format(name)
        save_model(model, tmp_path / name, tokenizer)
        assert load_tokenizer(tmp_path / name).chat.format.name == name


def test_the_card_tells_the_sizes_and_the_facts_given(tmp_path: Path, model: Transformer) -> None:
    save_model(model, tmp_path / "my-model", card=Card(facts={"Training tokens": "1,000"}))
    text = (tmp_path / "my-model" / "README.md").read_text()
    assert "# my-model" in text
    assert "| Training tokens | 1,000 |" in text
    assert f"| Parameters | {model.num_parameters:,} |" in text


def test_half_precision_is_stored_as_float32(tmp_path: Path, model: Transformer) -> None:
    save_model(model.to(torch.bfloat16), tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.token_embedding.weight.dtype == torch.float32
    assert torch.equal(loaded.token_embedding.weight, model.token_embedding.weight.float())


def test_other_files_in_the_folder_stay(folder: Path, model: Transformer) -> None:
    run = folder / "run-pretraining"
    run.mkdir()
    (run / "history.jsonl").write_text("{}")
    save_model(model, folder)
    assert (run / "history.jsonl").read_text() == "{}"


def test_saving_without_a_tokenizer_does_not_inherit_the_old_one(
    folder: Path, model: Transformer
) -> None:
    save_model(model, folder)
    with pytest.raises(ValueError, match="without a tokenizer: give one with --tokenizer"):
        load_tokenizer(folder)


def test_a_tokenizer_of_another_size_is_not_saved(
    folder: Path, model: Transformer, tokenizer: GreedyTokenizer
) -> None:
    with pytest.raises(ValueError, match="511 tokens, the model 512"):
        save_model(model, folder, GreedyTokenizer(tokenizer.tokens[:-1]))


def test_a_broken_model_does_not_replace_a_sound_one(folder: Path, model: Transformer) -> None:
    expected = load_model(folder)(IDS)
    with torch.no_grad():
        model.final_norm.weight[3] = float("nan")
    with pytest.raises(ValueError, match="final_norm.weight holds NaN"):
        save_model(model, folder)
    assert torch.equal(load_model(folder)(IDS), expected)


class Killed(BaseException):
    """Stands for a process that is gone: no cleaning up after it."""


def killed_after(num_operations: int, patch: pytest.MonkeyPatch) -> None:
    """Let that many file operations happen, then none."""
    left = iter(range(num_operations))

    def counted(operation: Callable) -> Callable:
        def operate(*arguments: object, **options: object) -> object:
            if next(left, None) is None:
                raise Killed
            return operation(*arguments, **options)

        return operate

    for name in ("mkdir", "rename", "replace", "rmdir", "write_text"):
        patch.setattr(Path, name, counted(getattr(Path, name)))
    for owner, name in ((store, "save_file"), (store, "sync_folder"), (shutil, "rmtree")):
        patch.setattr(owner, name, counted(getattr(owner, name)))


@pytest.mark.slow
def test_a_save_killed_before_any_file_operation_leaves_the_old_model_or_the_new(
    folder: Path, tokenizer: GreedyTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = load_model(folder)(IDS), Transformer(CONFIG).eval()
    seen = []
    for point in itertools.count():
        victim = tmp_path / f"victim-{point}"
        shutil.copytree(folder, victim)
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            killed_after(point, patch)
            save_model(new, victim, tokenizer)
            break
        logits = load_model(victim)(IDS)
        seen.append(torch.equal(logits, new(IDS)))
        assert seen[-1] or torch.equal(logits, old)
        assert load_tokenizer(victim).tokens == tokenizer.tokens
        save_model(new, victim, tokenizer)  # the next save works, and tidies up
        assert torch.equal(load_model(victim)(IDS), new(IDS))
        assert {path.name for path in victim.iterdir()} == {path.name for path in folder.iterdir()}
    assert seen == sorted(seen)  # the old model up to one moment, the new one from there
    assert seen.count(False) > 5
    assert seen.count(True) > 5


def test_a_full_disk_leaves_the_old_model(
    folder: Path, model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_model(folder)(IDS)

    def fail(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        save_model(Transformer(CONFIG), folder)
    assert torch.equal(load_model(folder)(IDS), expected)
    assert not (folder / ".saving").exists()


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_a_folder_without_a_model_says_what_makes_one(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / name, "training.ipynb or `python -m dimgpt train`", FileNotFoundError)


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, "model.safetensors is missing", FileNotFoundError)


def test_a_changed_vocabulary_is_noticed(folder: Path) -> None:
    path = folder / "vocab.txt"
    path.write_bytes(path.read_bytes().replace(b" S", b" Z", 1))
    with pytest.raises(ValueError, match="SHA-256 differs"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "{}", '{"format": "dimgpt"}', "[" * 100_000, '{"format": "dimgpt", "f'],
)
def test_a_damaged_config_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    refused(folder, "is not the config of a model")


def test_a_newer_format_is_refused(folder: Path) -> None:
    text = (folder / "config.json").read_text()
    newer = text.replace('"format_version": 1', '"format_version": 2')
    (folder / "config.json").write_text(newer)
    refused(folder, "format dimgpt 2, this program reads dimgpt 1")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"vocab_size": 511}, "vocab_size is 512 in the file and 511 in the config"),
        ({"num_layers": 3}, "num_layers is 2 in the file and 3 in the config"),
        ({"num_layers": 1}, "num_layers is 2 in the file and 1 in the config"),
        ({"num_layers": 10**9}, "num_layers is 2 in the file and 1000000000 in the config"),
        ({"embedding_dim": 60_000_000}, "embedding_dim is 16 in the file and 60000000"),
        ({"tie_embeddings": False}, "output_weight is missing"),
        ({"use_final_norm": False}, "final_norm.weight is unexpected"),
        ({"use_biases": True}, r"blocks.0.attention.query.bias is missing.* and \d+ more"),
        ({"num_heads": 3}, "must be a multiple"),
        ({"ffn_dim": "ten"}, "not the config"),
        ({"ffn_dim": 10.5}, "ffn_dim is 10.5: it must be a whole number"),
        ({"widht": 3}, "has no field 'widht'"),
        ({"qk_norm": True}, "blocks.0.attention.query_norm.weight is missing"),
        ({"qk_norm": "yes"}, "qk_norm is 'yes': it must be true or false"),
        ({"attention_pattern": "full"}, "attention_pattern is 'full': it must be a list"),
        ({"attention_pattern": None}, "attention_pattern is None: it must be a list"),
        ({"attention_pattern": []}, "attention_pattern has 0 layers: it must have 1 to num_layers"),
        ({"attention_pattern": ["full"] * 3}, "attention_pattern has 3 layers"),
        ({"attention_pattern": ["wide"]}, "each must be one of window, full"),
        ({"attention_pattern": [{}]}, "each must be one of window, full"),
        ({"feed_forward": "relu2"}, "feed_forward.gate.weight is unexpected"),
        ({"feed_forward": []}, r"feed_forward is \[\]: it must be one of"),
        ({"scaled_outputs": 0}, "scaled_outputs is 0: it must be one of"),
        ({"logit_cap": 0}, "logit_cap is 0: it must be a positive number"),
        ({"logit_cap": float("nan")}, "logit_cap is nan: it must be a positive number"),
        ({"logit_cap": "15"}, "logit_cap is '15': it must be a number"),
        ({"use_stream_scalars": True}, "blocks.0.stream_scalars is missing"),
        ({"use_value_embeddings": True}, "value_embeddings.1.weight is missing"),
    ],
)
def test_weights_that_do_not_fit_the_config_are_refused(
    folder: Path, fields: dict[str, object], match: str
) -> None:
    rewrite(folder, load_file(folder / "model.safetensors"), **fields)
    refused(folder, match)


def test_names_in_the_config_lead_nowhere(folder: Path) -> None:
    raw = json.loads((folder / "config.json").read_text())
    raw["sha256"]["../secret"] = "0"
    (folder / "config.json").write_text(json.dumps(raw))
    load_model(folder)  # only the files that a model has are ever opened
