"""The flags that say where data and models are."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dimgpt.presets import get_preset
from dimgpt.workspace import Workspace


@dataclass(frozen=True, kw_only=True, slots=True)
class Folders:
    """Where data and models are."""

    preset: str
    """Settings to start from: demo, french-5m, dimensiongpt-0.2b."""
    name: str | None = None
    """Name of the folders in data/ and models/; the preset's if not given."""
    data_name: str | None = None
    """Name of the folder in data/, if another: several models can share one preparation."""
    data_root: Path = Path("data")
    """Vocabularies and token files."""
    models_root: Path = Path("models")
    """Models and their runs."""

    def workspace(self, **changes: Any) -> Workspace:
        """Return the preset with changed fields, in these folders."""
        preset = get_preset(self.preset)
        preset = dataclasses.replace(preset, name=self.name or preset.name, **changes)
        return Workspace(
            preset=preset,
            data_root=self.data_root,
            models_root=self.models_root,
            data_name=self.data_name,
        )
