"""The verb `doctor`."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from dimgpt.doctor import examine
from dimgpt.presets import get_preset
from dimgpt.runtime import choose_runtime
from dimgpt.settings import override
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
        findings = []
        for finding in examine(workspace, choose_runtime(device=self.device)):
            findings.append(finding)
            if not self.json:
                print(f"{_SIGNS[finding.level]} {finding.about}: {finding.found}", flush=True)
        if self.json:
            print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
        if any(finding.level == "problem" for finding in findings):
            raise SystemExit(1)
