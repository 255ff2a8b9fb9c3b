"""Files in models/ and data/ that want to run, to fill the memory, or are not what they say."""

import collections
import json
import os
import random
import sys
import time
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from dimgpt.config import DataConfig, ModelConfig, SourceConfig
from dimgpt.data.preparing.preparation import prepare_source
from dimgpt.data.reading.pretraining import Corpus
from dimgpt.files import sha256_of
from dimgpt.model.transformer import Transformer
from dimgpt.pipeline.models import import_model, open_model
from dimgpt.runtime import choose_runtime
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.weights.checkpoint_file import StoredConfig
from dimgpt.weights.store import load_model, load_tokenizer, save_model

pytestmark = pytest.mark.slow
FIXTURES = Path(__file__).parents[1] / "fixtures"
LILLM = FIXTURES / "lillm" / "best_model_sft_orig_mod.pt"
TOKENIZER = GreedyTokenizer.load(FIXTURES / "dimensiongpt_sampling" / "vocab_512.txt")
CPU = choose_runtime("fp32", "cpu")
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


class Attack:
    """Pickles to a call that makes a folder."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


class AttackByState(Attack):
    """Pickles to a call whose result gets a state."""

    def __reduce__(self):
        return os.mkdir, (str(self.target),), {"a": 1}


@pytest.fixture
def config_class(monkeypatch):
    """Stand for lilLM's own class while a file is written."""
    module = types.ModuleType("model.config")
    module.Config = type("Config", (), {"__module__": "model.config"})
    monkeypatch.setitem(sys.modules, "model", types.ModuleType("model"))
    monkeypatch.setitem(sys.modules, "model.config", module)
    return module.Config


def refused(path, match="damaged or holds code, which was not run"):
    """Refuse a file as the verb `import` and `testing.ipynb` do."""
    models = path.parent / "models"
    for read in (
        lambda: import_model(path, models_root=models),
        lambda: open_model(path, runtime=CPU),
    ):
        with pytest.raises(ValueError, match=match) as caught:
            read()
        assert "\n" not in str(caught.value)
    assert not models.exists()


def with_state(config, state):
    config.__dict__.update(state)
    return config


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("attack", [Attack, AttackByState])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda attack, config: attack,
        lambda attack, config: {"model": {}, "config": attack},
        lambda attack, config: {"state_dict": {}, "hyper_parameters": {"n_head": attack}},
        lambda attack, config: {"tok_emb.weight": torch.ones(2, 2), "x": [{"deep": (attack,)}]},
        lambda attack, config: {"model": {}, "config": with_state(config(), {"eps": attack})},
        lambda attack, config: {"model": {}, "config": with_state(config(), {"a": [attack]})},
        lambda attack, config: {"model": collections.OrderedDict({attack: 1})},
    ],
)
def test_nothing_of_a_malicious_file_runs(tmp_path, config_class, is_zip, attack, wrap, fault):
    target, path = tmp_path / "attacked", tmp_path / "bad.pt"
    content = wrap(attack(target), config_class)
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    sys.modules.pop("model.config")
    refused(path)
    assert not target.exists()
    fault(16)


def rewritten(path, change, *, compression=zipfile.ZIP_STORED):
    """Write the checkpoint of lilLM with another pickle in it, its checksums right."""
    with zipfile.ZipFile(LILLM) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, change(content) if name.endswith("/data.pkl") else content)
    return path


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02cos\nmkdir\nX\x08\x00\x00\x00attacked\x85R.",
        b"\x80\x02cposix\nsystem\nX\x0e\x00\x00\x00touch attacked\x85R.",
        b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.",
        # The one class that is known, called and built with what a file likes.
        b"\x80\x02cmodel.config\nConfig\nX\x01\x00\x00\x00a\x85R.",
        b"\x80\x02cmodel.config\nConfig\n)\x81X\x01\x00\x00\x00ab.",
        b"\x80\x02cmodel.config\nConfig\n)\x81}X\x09\x00\x00\x00__class__cmodel.config\nConfig\nsb.",
        b"\x80\x02cmodel.config\nConfig\n}X\x06\x00\x00\x00valuesK\x01sb.",
        b"\x80\x02cmodel.config\nConfig.__init__\n.",
    ],
)
def test_hand_made_pickles_are_refused(tmp_path, monkeypatch, pickled, fault):
    monkeypatch.chdir(tmp_path)
    refused(rewritten(tmp_path / "bad.pt", lambda content: pickled))
    (tmp_path / "bare.pt").write_bytes(pickled)
    refused(tmp_path / "bare.pt")
    assert not (tmp_path / "attacked").exists()
    assert StoredConfig.values == {}
    fault(16, 2)


def test_compressed_entries_are_not_unpacked(tmp_path, fault):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"\0" * 50_000_000)
    assert path.stat().st_size < 100_000
    refused(path)
    refused(rewritten(path, lambda content: content, compression=zipfile.ZIP_DEFLATED))
    fault(16, 2)


def test_an_index_of_pickled_objects_is_never_unpickled(tmp_path, fault):
    texts = "".join(json.dumps({"text": f"le chat numéro {n}"}) + "\n" for n in range(30))
    (tmp_path / "cats.jsonl").write_text(texts)
    source = SourceConfig(name="cats", path=str(tmp_path / "cats.jsonl"))
    config = DataConfig(min_document_characters=4, validation_ratio=0.3, num_workers=1)
    folder = prepare_source(source, TOKENIZER, tmp_path, config=config)
    index, path = folder / "train.index.npy", folder / "manifest.json"
    np.save(index, np.array([Attack(tmp_path / "attacked")] * 4, dtype=object))
    manifest = json.loads(path.read_text())
    manifest["files"]["train"]["index_sha256"] = sha256_of(index)
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"train\.index\.npy is not an array"):
        Corpus.open(tmp_path, [source], TOKENIZER.fingerprint)
    assert not (tmp_path / "attacked").exists()
    fault(16)


@pytest.fixture
def folder(tmp_path):
    save_model(Transformer(CONFIG), tmp_path / "tiny", TOKENIZER)
    return tmp_path / "tiny"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.txt"])
def test_links_are_not_followed(folder, tmp_path, name, fault):
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    with pytest.raises(ValueError, match="is a link"):
        open_model(folder, runtime=CPU)
    fault(16)


def test_a_link_in_place_of_an_unfinished_save_is_not_followed(folder, tmp_path, fault):
    save_model(Transformer(CONFIG), tmp_path / "other", TOKENIZER)
    (folder / ".saved").symlink_to(tmp_path / "other", target_is_directory=True)
    for read in (load_model, load_tokenizer):
        with pytest.raises(ValueError, match="is a link"):
            read(folder)
    fault(16)


def put_weights(folder, content):
    """Put other weights into a folder, and their hash into its config.json."""
    (folder / "model.safetensors").write_bytes(content)
    config = json.loads((folder / "config.json").read_text())
    config["sha256"]["model.safetensors"] = sha256_of(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def refused_at_once(folder, match):
    begin = time.perf_counter()
    with pytest.raises(ValueError, match=match) as caught:
        open_model(folder, runtime=CPU)
    assert time.perf_counter() - begin < 1
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_or_a_lost_end_of_the_weights_is_noticed_by_its_hash(folder, fault):
    path, places = folder / "model.safetensors", random.Random(0)
    whole = path.read_bytes()
    for number in range(100):
        place, bad = places.randrange(len(whole)), bytearray(whole)
        bad[place] ^= 1 << places.randrange(8)
        path.write_bytes(bad if number % 5 else whole[:place])
        refused_at_once(folder, "SHA-256 differs")
        fault(17)


CHANGES = {
    "dtype": ["F64", "F16", "BF16", "I32", "I64", "BOOL", "F8_E4M3", "X9", "", None, 3],
    "shape": [[], [0], [-1], [1 << 62], [1 << 31, 1 << 31], [1 << 64], [1.5], "2", None, [[2]]],
    "data_offsets": [[0, 0], [-4, 0], [0, 1 << 62], [4, 0], [1, 5], [0], [], "0", None, [0, 1.5]],
    "name": ["", "x", "blocks.9.ffn_norm.weight", "blocks.-1.x", "final_norm", "two\nlines"],
}


def test_a_header_that_says_something_else_is_refused(folder, fault):
    whole = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header, tensors = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    places = random.Random(0)
    for field, values in CHANGES.items():
        for value in values:
            for name in places.sample(names, 4):
                changed = json.loads(json.dumps(header))
                if field == "name":
                    changed[value] = changed.pop(name)
                else:
                    changed[name][field] = value
                content = json.dumps(changed).encode()
                put_weights(folder, len(content).to_bytes(8, "little") + content + tensors)
                refused_at_once(folder, "no safetensors|does not fit|no state dict|no floating")
                fault(17)


def test_what_is_no_safetensors_file_is_refused(folder, fault):
    whole = (folder / "model.safetensors").read_bytes()
    deep, long = b"[" * 100_000, b'{"a":' * 1_000
    for content in (
        *(b"", b"\xff" * 100, b"PK\x03\x04", whole + b"x", whole[:-4], whole[8:], whole * 2),
        *(
            size.to_bytes(8, "little") + whole[8:]
            for size in (0, 1, 1 << 31, 1 << 62, (1 << 64) - 1)
        ),
        *(len(text).to_bytes(8, "little") + text for text in (deep, long, b"{}", b"null", b"[]")),
    ):
        put_weights(folder, content)
        refused_at_once(folder, "no safetensors file|no state dict")
        fault(17)


def test_weights_that_are_not_finite_are_refused_by_name(folder, fault):
    whole = load((folder / "model.safetensors").read_bytes())
    places = random.Random(0)
    for number in range(60):
        name = places.choice(list(whole))
        bad = whole[name].clone()
        value = (float("nan"), float("inf"), -float("inf"))[number % 3]
        bad.view(-1)[places.randrange(bad.numel())] = value
        put_weights(folder, save(whole | {name: bad}))
        refused_at_once(folder, f"{name} holds NaN")
        fault(17)
