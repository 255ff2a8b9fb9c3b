"""The verbs that check machine, files and models."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import tyro

from dimgpt.doctor import Finding, examine
from dimgpt.presets import get_preset
from dimgpt.runtime import choose_runtime
from dimgpt.settings import override
from dimgpt.verification import follow
from dimgpt.workspace import Workspace

_SIGNS = {"ok": "✓", "warning": "!", "problem": "✗"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Doctor:
    """Flags of `doctor`."""

    preset: str = "demo"
    """Preset to check this machine for."""
    name: str | None = None
    """Name of your own data and models; the preset's if not given."""
    data_root: Path = Path("data")
    """Folder with the vocabularies and token files."""
    models_root: Path = Path("models")
    """Folder with the models and their runs."""
    device: str = "auto"
    """auto, cuda, mps or cpu."""
    json: bool = False
    """Print one JSON list instead of lines."""

    def run(self) -> None:
        """Print the findings, one a line; exit with status 1 if there is a problem."""
        preset = override(get_preset(self.preset), name=self.name)
        workspace = Workspace(preset=preset, data_root=self.data_root, models_root=self.models_root)
        _report(examine(workspace, choose_runtime(device=self.device)), as_json=self.json)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verify:
    """Flags of `verify`."""

    model: tyro.conf.Positional[Path]
    """Folder of an export, of a model, or of a run."""
    json: bool = False
    """Print one JSON list instead of lines."""

    def run(self) -> None:
        """Print each link of the chain; exit with status 1 at the first that does not hold."""
        _report(follow(self.model), as_json=self.json)


def _report(findings: Iterable[Finding], *, as_json: bool) -> None:
    found = []
    for finding in findings:
        found.append(finding)
        if not as_json:
            print(f"{_SIGNS[finding.level]} {finding.about}: {finding.found}", flush=True)
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in found], indent=1))
    if any(finding.level == "problem" for finding in found):
        raise SystemExit(1)
