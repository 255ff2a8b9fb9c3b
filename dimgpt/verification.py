"""Follows a model back to its texts, and compares each hash that was recorded on the way.

    export.json          hashes of an export's files, and of its model's config.json
    config.json          hashes of a model's files; card.json there names the checkpoint
    checkpoint           its manifest.json, the vocabulary, the token files, and the base model
    manifest.json        hashes of token files, of their vocabulary, and of the source's files

The chain ends where files are missing, or where an older version recorded no hash.
"""

from collections.abc import Iterator
from pathlib import Path

from dimgpt.config import ModelConfig
from dimgpt.data.token_file import TokenFile, changed_files, read_manifest
from dimgpt.doctor import Finding
from dimgpt.files import sha256_of
from dimgpt.pipeline.data import fingerprint_data, fingerprint_manifests, source_folders
from dimgpt.pipeline.models import open_model
from dimgpt.pipeline.training import open_run
from dimgpt.runtime import choose_runtime
from dimgpt.settings import from_dict
from dimgpt.training.checkpoint import Checkpoint, CheckpointStore
from dimgpt.weights.adapter import fingerprint_base
from dimgpt.weights.export.exporter import RECORD_NAME
from dimgpt.weights.foreign_files import read_json
from dimgpt.weights.store import CONFIG_NAME, load_card, load_model_config, require_intact
from dimgpt.workspace import Stage, Workspace, load_vocabulary


def follow(folder: Path) -> Iterator[Finding]:
    """Yield a finding for each link from an export, a model or a run to the texts behind it.

    The first link that does not hold is a problem, and the last finding. A missing file is a
    warning.
    """
    try:
        if (folder / RECORD_NAME).is_file():
            yield from _export(folder)
        elif (folder / "checkpoints").is_dir():
            yield from _newest(folder)
        else:
            yield from _model(folder)
    except (OSError, ValueError) as error:
        found = " ".join(str(error).split())
        yield Finding(level="problem", about="this link does not hold", found=found)


def _export(folder: Path) -> Iterator[Finding]:
    record = read_json(folder / RECORD_NAME)
    for name, sha256 in record["sha256"].items():
        _require(sha256_of(folder / name), sha256, f"{folder / name} has changed since the export")
    yield _ok(f"export {folder}", f"{len(record['sha256'])} files are as they were written")
    yield from _model_of(folder, record.get("origin") or {})


def _model_of(folder: Path, origin: dict[str, str]) -> Iterator[Finding]:
    """Follow an export to its model, which must be in the same folder as the export."""
    if "model" not in origin:
        yield _end(f"export {folder}", "its model is not recorded")
        return
    model = folder.absolute().parent / origin["model"]
    if not (model / CONFIG_NAME).is_file():
        yield _end(f"model {model}", "not here")
        return
    what = f"{model / CONFIG_NAME} has changed since {folder.name} was exported"
    _require(sha256_of(model / CONFIG_NAME), origin["config_sha256"], what)
    yield from _model(model)


def _model(folder: Path) -> Iterator[Finding]:
    require_intact(folder)
    origin = load_card(folder)[0].origin
    yield _ok(f"model {folder}", "all files are as they were saved")
    if "model" in origin:
        yield from _model_of(folder, origin)
        return
    if "run" not in origin:
        yield _end(f"model {folder}", "its checkpoint is not recorded")
        return
    run = folder.absolute().parent / origin["run"]
    path = run / "checkpoints" / origin["checkpoint"]
    if not path.is_dir():
        yield _end(f"checkpoint {path}", "not here")
        return
    what = f"{path / 'manifest.json'} has changed since {folder.name} was saved"
    _require(sha256_of(path / "manifest.json"), origin["manifest_sha256"], what)
    checkpoint = CheckpointStore(path.parent).load(path)
    if load_model_config(folder) != from_dict(ModelConfig, checkpoint.state["model"]):
        raise ValueError(
            f"{folder / CONFIG_NAME} has another architecture than {path}: save the model again "
            "with `python -m dimgpt resume`"
        )
    yield from _run(run, checkpoint, manifests=origin["data_sha256"])


def _newest(run: Path) -> Iterator[Finding]:
    store = CheckpointStore(run / "checkpoints")
    if (checkpoint := store.load_latest()) is None:
        raise ValueError(f"{store.folder} has no intact checkpoint: train again")
    yield from _run(run, checkpoint)


def _run(run: Path, checkpoint: Checkpoint, *, manifests: str | None = None) -> Iterator[Finding]:
    """Follow a checkpoint; `manifests` is what its model recorded of the token files."""
    yield _ok(f"checkpoint {checkpoint.path}", "all files are as they were saved")
    workspace, stage = open_run(run, models_root=run.absolute().parents[1])
    if not workspace.data_folder.is_dir():
        yield _end(f"data {workspace.data_folder}", "not here")
    else:
        yield from _data(workspace, stage, checkpoint, manifests)
    base = workspace.base_path(stage)
    if base is None:
        return
    if not base.exists():
        yield _end(f"base model {base}", "not here")
        return
    model, _ = open_model(base, runtime=choose_runtime("fp32", "cpu"))
    what = f"{base} has changed since {run} began with it"
    _require(fingerprint_base(model), checkpoint.state["fingerprints"]["base model"], what)
    if (base / CONFIG_NAME).is_file():
        yield from _model(base)


def _data(
    workspace: Workspace, stage: Stage, checkpoint: Checkpoint, manifests: str | None
) -> Iterator[Finding]:
    fingerprint, state = load_vocabulary(workspace).fingerprint, checkpoint.state
    what = f"{workspace.vocabulary_path} is another vocabulary than that of {checkpoint.path}"
    _require(fingerprint, state["vocabulary"], what)
    yield _ok(f"vocabulary {workspace.vocabulary_path}", "the one that the run was trained with")
    folders = source_folders(workspace, stage)
    for folder in folders:
        files = read_manifest(folder).files
        for name in files:
            TokenFile(folder, name, fingerprint=fingerprint)
        yield _ok(f"token files {folder}", f"{', '.join(files)} are as they were prepared")
    what = f"{workspace.data_dir(stage)} holds other token files than those of {checkpoint.path}"
    _require(fingerprint_data(workspace, stage), state["fingerprints"]["data"], what)
    if manifests is not None:
        what = f"a manifest.json in {workspace.data_dir(stage)} has changed since the training"
        _require(fingerprint_manifests(workspace, stage), manifests, what)
    for folder in folders:
        yield _source(folder)


def _source(folder: Path) -> Finding:
    manifest = read_manifest(folder)
    path = manifest.source.get("settings", {}).get("path", "an older preparation")
    about, files = f"source {path}", manifest.source_files
    if not files:
        revision = manifest.source.get("revision")
        return _end(about, f"not on this disk, revision {revision}" if revision else "no files")
    found = changed_files(folder)
    listed = ", ".join(f"{name} {change}" for name, change in found.items())
    if "has changed" in found.values():
        raise ValueError(
            f"{listed} since {folder} was prepared: bring back the file from a copy, or prepare "
            "and train again"
        )
    if found:
        return _end(about, listed)
    return _ok(about, f"{len(files)} files are as they were read")


def _require(found: str, recorded: str, what: str) -> None:
    """Raise a `ValueError` if a hash is not the recorded one."""
    if found != recorded:
        raise ValueError(
            f"{what} (SHA-256 {found[:12]}, recorded {recorded[:12]}): bring back the file from a "
            "copy, or make it again"
        )


def _ok(about: str, found: str) -> Finding:
    return Finding(level="ok", about=about, found=found)


def _end(about: str, found: str) -> Finding:
    return Finding(level="warning", about=about, found=f"{found}: nothing before it is compared")
