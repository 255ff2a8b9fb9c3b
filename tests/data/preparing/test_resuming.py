"""What an unfinished preparation keeps; `tests/faults/test_killed_preparations.py` kills it."""

import contextlib
import dataclasses
import json
from pathlib import Path

import pytest

from dimgpt.config import DataConfig, QualityConfig, SourceConfig
from dimgpt.data.preparing.preparation import prepare_source
from dimgpt.data.token_file import TokenFile, read_manifest

SIZES = {"block_bytes": 300, "part_blocks": 2}
CONFIG = DataConfig(
    min_document_characters=4,
    validation_ratio=0.3,
    num_workers=1,
    quality=QualityConfig(drop_exact_duplicates=True),
)

pytestmark = pytest.mark.slow


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in range(2):
        texts = [f"chat {n % 25} {name * (n < 25)} ici" for n in range(30)]
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text(lines)
    return SourceConfig(name="cats", path=str(folder))


def prepare(source, tokenizer, folder, *, config=CONFIG, progress=None, sizes=SIZES):
    return prepare_source(source, tokenizer, folder, config=config, progress=progress, **sizes)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def expected(source, tokenizer, tmp_path):
    return contents(prepare(source, tokenizer, tmp_path / "whole"))


def test_the_source_has_what_the_tests_need(expected, tokenizer, tmp_path):
    manifest = read_manifest(tmp_path / "whole" / "cats")
    assert len(manifest.files["train"].parts) == 4
    assert manifest.dropped == {"exact_duplicate": 10}
    for name, summary in manifest.files.items():
        file = TokenFile(tmp_path / "whole" / "cats", name, fingerprint=tokenizer.fingerprint)
        assert sum(map(len, file.parts)) == summary.num_tokens == file.offsets[-1]


def test_a_run_goes_on_after_its_finished_parts(source, tokenizer, tmp_path, expected):
    def stop(progress):
        if progress.num_documents > 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(source, tokenizer, tmp_path, progress=stop)
    unfinished = tmp_path / "cats.unfinished"
    parts = {path: path.stat().st_mtime_ns for path in unfinished.glob("*.bin")}
    assert parts
    seen = []

    def watch(progress):
        seen.append(progress)
        if len(seen) == 1:
            assert {path: path.stat().st_mtime_ns for path in parts} == parts

    assert contents(prepare(source, tokenizer, tmp_path, progress=watch)) == expected
    assert seen[0].num_documents > 20
    assert seen[-1].file_bytes == seen[-1].total_file_bytes
    assert seen[-1].num_documents == 50


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "pattern",
    [
        "train-*.bin",
        "train-*.index.npy",
        "part-*.json",
        "part-*.keys.npy",
        "plan.json",
    ],
)
@pytest.mark.parametrize("damage", [flip, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_part_is_made_again(source, tokenizer, tmp_path, expected, pattern, damage):
    with contextlib.suppress(KeyboardInterrupt):
        prepare(source, tokenizer, tmp_path, progress=_stop_late)
    damage(sorted((tmp_path / "cats.unfinished").glob(pattern))[0])
    assert contents(prepare(source, tokenizer, tmp_path)) == expected


def _stop_late(progress):
    if progress.num_documents > 45:
        raise KeyboardInterrupt


def test_other_settings_begin_again(source, tokenizer, tmp_path):
    with contextlib.suppress(KeyboardInterrupt):
        prepare(source, tokenizer, tmp_path / "a", progress=_stop_late)
    other = dataclasses.replace(CONFIG, seed=1)
    for name in ("a", "b"):
        prepare(source, tokenizer, tmp_path / name, config=other)
    assert contents(tmp_path / "a" / "cats") == contents(tmp_path / "b" / "cats")
