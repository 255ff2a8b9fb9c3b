"""Token files that are damaged, lie about their ids, or belong to another vocabulary."""

import dataclasses
import hashlib
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from dimgpt.cli import main
from dimgpt.config import ModelConfig, TokenizerConfig
from dimgpt.data.preparing.preparation import plan_preparation
from dimgpt.data.token_writer import TokenFileWriter
from dimgpt.model.transformer import Transformer
from dimgpt.pipeline.data import open_data, prepare_files
from dimgpt.pipeline.vocabulary import prepare_vocabulary
from dimgpt.presets import PRESETS
from dimgpt.settings import override
from dimgpt.text.byte_level import train_byte_level
from dimgpt.weights.store import save_model
from dimgpt.workspace import Workspace, customise_data

pytestmark = pytest.mark.slow
VOCAB_SIZE = 300


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Documents in several parts, and conversations, prepared."""
    folder = tmp_path_factory.mktemp("own")
    texts = [{"text": f"le chat {n} dort dans la cour"} for n in range(60)]
    chats = [{"user": f"Qui es-tu, {n} ?", "assistant": f"Le chat {n}."} for n in range(60)]
    for name, records in {"texts": texts, "chats": chats}.items():
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"{name}.jsonl").write_text(lines)
    preset = customise_data(
        override(PRESETS["demo"], name="mine"),
        sources=[str(folder / "texts.jsonl")],
        conversations=[str(folder / "chats.jsonl")],
        vocab_size=VOCAB_SIZE,
        tokenizer=TokenizerConfig(kind="byte_level"),
        validation_ratio=0.3,
        num_workers=1,
    )
    workspace = Workspace(preset=preset, data_root=folder / "data", models_root=folder / "models")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"block_bytes": 300, "part_blocks": 4}.items():
            patch.setitem(plan_preparation.__kwdefaults__, name, value)
        prepare_files(workspace, prepare_vocabulary(workspace))
    return workspace


@pytest.fixture
def workspace(made, tmp_path):
    """A copy of it, to damage."""
    shutil.copytree(made.data_root.parent, tmp_path, dirs_exist_ok=True)
    return dataclasses.replace(made, data_root=tmp_path / "data", models_root=tmp_path / "models")


def open_all(workspace):
    """Open the data of both stages, as `train`, `finetune` and `training.ipynb` do."""
    return [open_data(workspace, stage) for stage in ("pretraining", "finetuning")]


def refused(workspace, stage, match):
    with pytest.raises(ValueError, match=match) as caught:
        open_data(workspace, stage)
    assert "\n" not in str(caught.value)


def damages(whole, generator):
    """Yield a file's content cut short, with one bit flipped, and with zeros at its end."""
    size = len(whole)
    for _ in range(5):
        yield whole[: generator.randrange(size)]
        place = generator.randrange(size)
        flipped = whole[place] ^ 1 << generator.randrange(8)
        yield whole[:place] + bytes([flipped]) + whole[place + 1 :]
        num_zeros = generator.randrange(2, size)
        yield whole[:-num_zeros] + bytes(num_zeros)


def test_a_damaged_file_is_refused_by_its_name(workspace, fault):
    open_all(workspace)
    data, generator = workspace.data_folder, random.Random(0)
    files = sorted(path for path in data.rglob("*") if path.suffix in (".bin", ".npy"))
    contents = {path: path.read_bytes() for path in files}
    assert len([path for path in files if path.name.startswith("train-")]) > 2
    for path, whole in contents.items():
        stage = path.relative_to(data).parts[0]
        others = [other for other in contents.values() if other != whole]
        for bad in [*damages(whole, generator), *generator.sample(others, 4)]:
            if bad != whole:  # some end in zeros
                path.write_bytes(bad)
                refused(workspace, stage, rf"{path.name} (has|is|does|holds) .*; prepare it again")
                fault(4)
        path.write_bytes(whole)
    open_all(workspace)


def rewrite(folder, vocab_size, bad_id=None, place=0):
    """Make a folder one of a larger vocabulary, with a bad id in a part; its manifest agrees."""
    dtype = np.uint16 if vocab_size <= 65_535 else np.uint32
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"vocab_size": vocab_size, "dtype": np.dtype(dtype).name}
    for summary in manifest["files"].values():
        for part in summary["parts"]:
            ids = np.fromfile(folder / part["name"], np.uint16).astype(dtype)
            if bad_id is not None and part["name"] == "train-00000-00001.bin":
                ids[place] = bad_id
            (folder / part["name"]).write_bytes(ids.tobytes())
            part["sha256"] = hashlib.sha256(ids.tobytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("vocab_size", [VOCAB_SIZE, 70_000])
def test_an_id_outside_the_vocabulary_is_refused_with_its_offset(workspace, vocab_size, fault):
    folder = workspace.data_dir("pretraining") / "texts"
    whole = shutil.copytree(folder, folder.with_name("whole"))
    rewrite(folder, vocab_size)
    open_all(workspace)
    num_ids = (whole / "train-00000-00001.bin").stat().st_size // 2
    largest = (1 << 16) - 1 if vocab_size <= 65_535 else (1 << 32) - 1
    for offset in (0, num_ids // 2, num_ids - 1):
        for bad_id in (vocab_size, largest):
            shutil.copytree(whole, folder, dirs_exist_ok=True)
            rewrite(folder, vocab_size, bad_id, offset)
            refused(
                workspace,
                "pretraining",
                rf"1.bin has id {bad_id} at offset {offset:,}, outside the vocab",
            )
            fault(5)


def test_a_manifest_that_names_an_id_outside_its_vocabulary_is_refused(workspace, fault):
    path = workspace.data_dir("pretraining") / "texts" / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in ("train", "validation"):
        changed = json.loads(json.dumps(manifest))
        changed["files"][name]["largest_id"] = VOCAB_SIZE
        path.write_text(json.dumps(changed))
        refused(
            workspace,
            "pretraining",
            f"holds id {VOCAB_SIZE} of {VOCAB_SIZE} tokens; prepare it again",
        )
        fault(5)


@pytest.mark.parametrize("vocab_size", [VOCAB_SIZE, 70_000])
@pytest.mark.parametrize("id", ["vocab_size", -1, (1 << 16) + 7 + (1 << 20), (1 << 32) + 7])
def test_an_id_that_its_type_would_turn_into_another_is_not_written(
    tmp_path, vocab_size, id, fault
):
    id = vocab_size if id == "vocab_size" else id
    with (  # noqa: PT012
        pytest.raises(ValueError, match=f"has id {id} at offset 3, outside the vocabulary"),
        TokenFileWriter(tmp_path, "train", vocab_size=vocab_size) as writer,
    ):
        for ids in ([1, 2], [1, id]):
            writer.write_documents(np.array(ids), np.array([2]), num_characters=0, num_bytes=0)
    assert not list(tmp_path.iterdir())
    fault(5)


@pytest.fixture(scope="module")
def other_tokenizer():
    """Another vocabulary of the same size."""
    return train_byte_level(
        ["Un zébu broute sous le kapokier, près du kiosque où joue un wagon."], VOCAB_SIZE
    )


def complaint(*words):
    with pytest.raises(SystemExit) as stop:
        main([*words])
    assert isinstance(stop.value.code, str)
    assert "\n" not in stop.value.code
    return stop.value.code


def test_another_vocabulary_of_the_same_size_is_refused(
    workspace, other_tokenizer, monkeypatch, fault
):
    monkeypatch.chdir(workspace.data_root.parent)
    shape = {"embedding_dim": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "ffn_dim": 8}
    model = Transformer(ModelConfig(vocab_size=VOCAB_SIZE, context_length=32, **shape))
    save_model(model, Path("models/mine"), other_tokenizer)
    finetune = ("finetune", "--name", "mine", "--device", "cpu")
    assert "was trained with another vocabulary than" in complaint(*finetune)
    fault(6)

    other_tokenizer.save(workspace.vocabulary_path)
    train = ("train", "--name", "mine", "--device", "cpu", "--training.max-steps", "1")
    for words in (train, finetune):
        assert "its ids mean other tokens; prepare it again" in complaint(*words)
        fault(6)

    tokenizer = Path("models/mine/tokenizer.json")
    tokenizer.write_bytes(tokenizer.read_bytes().replace(b'"!"', b'"?"', 1))
    generate = ("generate", "--model", "models/mine")
    assert "is not the file that was saved (its SHA-256 differs" in complaint(*generate)
    fault(6)
