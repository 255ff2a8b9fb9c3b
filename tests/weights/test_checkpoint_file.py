"""Files that fill the memory, or are something else than they say; `tests/faults` has attacks."""

import collections
import io
import pickle
import random
import struct
import time
import zipfile
from pathlib import Path

import pytest
import torch

from dimgpt.weights.checkpoint_file import read_checkpoint
from dimgpt.weights.originals import load_original

FIXTURES = Path(__file__).parents[1] / "fixtures"
LILLM = FIXTURES / "lillm" / "best_model_sft_orig_mod.pt"


def refused(path: Path, match: str = "damaged or holds code, which was not run") -> None:
    started = time.monotonic()
    for read in (read_checkpoint, load_original):
        with pytest.raises(ValueError, match=match) as caught:
            read(path)
        assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 30


def saved(path: Path, content: object, **options: bool) -> Path:
    torch.save(content, path, **options)
    return path


def rewritten(path: Path, change, *, compression: int = zipfile.ZIP_STORED) -> Path:
    """Write the checkpoint of lilLM with another pickle in it, its checksums right."""
    with zipfile.ZipFile(LILLM) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, change(content) if name.endswith("/data.pkl") else content)
    return path


def test_a_config_called_by_another_name_is_refused(tmp_path: Path) -> None:
    path = rewritten(
        tmp_path / "bad.pt",
        lambda content: content.replace(b"cmodel.config\nConfig", b"cmodel.confih\nConfig"),
    )
    refused(path)


@pytest.mark.parametrize("config", ["words", 3, [1], torch.ones(2)])
def test_a_config_of_another_kind_is_refused(tmp_path: Path, config: object) -> None:
    content = {"model": {"tok_emb.weight": torch.ones(2, 2)}, "config": config}
    if isinstance(config, torch.Tensor):
        content["config"] = [config]
    refused(saved(tmp_path / "bad.pt", content), "has a config of type (str|int|list)")


def test_tensors_that_claim_more_than_the_file_holds_are_refused(tmp_path: Path) -> None:
    huge = torch.zeros(1).expand(10**9, 512)
    content = {"tok_emb.weight": huge, "lm_head.weight": huge, "norm.gain": torch.ones(512)}
    refused(saved(tmp_path / "bomb.pt", content), "claims tensors of .* made to exhaust the memory")
    shared = torch.zeros(256, 256)
    content = {"token_embedding.weight": shared} | {f"blocks.{i}.x": shared for i in range(999)}
    refused(saved(tmp_path / "bomb.pt", content), "claims tensors of .* made to exhaust the memory")


def test_a_storage_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    shape, larger_shape = b"M\x00\x02K@\x86", b"J" + struct.pack("<i", 2**30) + b"K@\x86"
    number, larger_number = b"M\x00\x80", b"\x8a\x05" + struct.pack("<q", 2**36)[:5]

    def claim(content: bytes) -> bytes:
        assert shape in content
        assert number in content
        return content.replace(shape, larger_shape).replace(number, larger_number)

    refused(rewritten(tmp_path / "bad.pt", claim))


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(2, 2).to_sparse(),
        torch.ones(2, 2, dtype=torch.int64),
        torch.ones(2, 2, dtype=torch.complex64),
        torch.ones(2, 2, device="meta"),
        torch.ones(2, 2).to(torch.float8_e4m3fn),
        [torch.ones(2, 2)],
        None,
        "words",
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_plain_tensor_is_refused(tmp_path: Path, value: object) -> None:
    content = {"tok_emb.weight": torch.ones(2, 2), "norm.gain": value}
    refused(
        saved(tmp_path / "bad.pt", content), r"no state dict of plain tensors.*norm\.gain|damaged"
    )


@pytest.mark.parametrize("method", ["numel", "detach", "to", "isfinite", "x"])
def test_a_tensor_with_methods_of_its_own_is_refused(tmp_path: Path, method: str) -> None:
    tensor = torch.ones(2, 2)
    setattr(tensor, method, torch.Size)
    path = saved(tmp_path / "bad.pt", {"tok_emb.weight": torch.ones(2, 2), "norm.gain": tensor})
    refused(path, "no state dict of plain tensors: 'norm.gain'")


class OddDict:
    """Pickles to an OrderedDict whose methods are something else."""

    def __init__(self, content: dict) -> None:
        self.content = content

    def __reduce__(self) -> tuple:
        methods = dict.fromkeys(("items", "get", "keys", "values", "pop"), torch.Size)
        return collections.OrderedDict, (), methods, None, iter(self.content.items())


def test_a_dict_with_methods_of_its_own_is_read_as_a_dict(tmp_path: Path) -> None:
    state = torch.load(FIXTURES / "toygpt" / "state_dict.pt", weights_only=True)
    settings = OddDict({"n_head": 4, "block_size": 64})
    content = OddDict({"state_dict": OddDict(state), "hyper_parameters": settings})
    path = saved(tmp_path / "odd.ckpt", content)
    assert torch.load(path, weights_only=True).items is torch.Size
    assert load_original(path).system == "toygpt"


@pytest.mark.parametrize("name", [3, None, "two\nlines", "\x1b[31mred"])
def test_what_is_no_plain_name_is_refused(tmp_path: Path, name: object) -> None:
    path = saved(tmp_path / "bad.pt", {"tok_emb.weight": torch.ones(2), name: torch.ones(2)})
    refused(path, "no state dict of plain tensors")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([1, 2], "holds a list that is no state dict"),
        ({}, "has no tensors: these are not the weights of"),
        ({"a": torch.ones(2), "b": torch.ones(2)}, "has tensors a, b: these are not the weights"),
        ({"model": {"a": torch.ones(2)}}, "has tensors a: these are not the weights"),
        ({f"layer.{i}": torch.ones(2) for i in range(9)}, "layer.3 and 5 more: these are not"),
    ],
)
def test_what_is_none_of_the_systems_says_what_was_found(
    tmp_path: Path, content: object, match: str
) -> None:
    path = saved(tmp_path / "other.pt", content)
    with pytest.raises(ValueError, match=match) as caught:
        load_original(path)
    assert "\n" not in str(caught.value)


def test_single_flipped_bits_are_noticed_wherever_numbers_or_names_are(tmp_path: Path) -> None:
    whole, path, places = LILLM.read_bytes(), tmp_path / "flipped.pt", random.Random(0)
    with zipfile.ZipFile(LILLM) as archive:
        entries = archive.infolist()
    for _ in range(60):
        entry = places.choice(entries)
        content = bytearray(whole)
        # The content of an entry ends where the next header, or a padding before it, begins.
        start = content.index(entry.filename.encode(), entry.header_offset) + len(entry.filename)
        length = int.from_bytes(content[entry.header_offset + 28 :][:2], "little")
        content[start + length + places.randrange(entry.file_size)] ^= 1 << places.randrange(8)
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged or holds code"):
            load_original(path)


@pytest.mark.slow
def test_damaged_pickles_with_right_checksums_never_surface_as_another_error(
    tmp_path: Path,
) -> None:
    places, num_refused = random.Random(1), 0

    def damage(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[places.randrange(len(changed))] ^= 1 << places.randrange(8)
        return bytes(changed)

    for _ in range(40):
        path = rewritten(tmp_path / "damaged.pt", damage)
        try:
            load_original(path)
        except ValueError:  # any other error fails the test
            num_refused += 1
    assert num_refused > 10


def test_truncated_files_are_refused_wherever_they_end(tmp_path: Path) -> None:
    whole, path = LILLM.read_bytes(), tmp_path / "cut.pt"
    for length in (0, 1, 10, 100, 5_000, len(whole) // 2, len(whole) - 22, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path)


def test_reading_leaves_no_class_allowed_behind() -> None:
    read_checkpoint(LILLM)
    assert "StoredConfig" not in str(torch.serialization.get_safe_globals())
    buffer = io.BytesIO(LILLM.read_bytes())
    with pytest.raises(pickle.UnpicklingError):
        torch.load(buffer, weights_only=True)


def test_the_file_may_go_while_the_model_lives(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(LILLM.read_bytes())
    model, ids = load_original(path).model, torch.arange(8)[None]
    before = model(ids)
    path.write_bytes(b"")
    assert torch.equal(model(ids), before)
