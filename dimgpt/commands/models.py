"""The verbs about models on disk, and what they weigh."""

from dataclasses import dataclass
from pathlib import Path

from dimgpt.display import Table
from dimgpt.info import describe_folder, describe_preset, look_around
from dimgpt.presets import Preset, get_preset
from dimgpt.runtime import choose_runtime


@dataclass(frozen=True, kw_only=True, slots=True)
class Info:
    """Show this machine, and the sizes of a preset or of a model folder."""

    preset: str
    """Preset to describe."""
    model: Path | None = None
    """Model folder to describe instead."""

    @classmethod
    def defaults(cls, preset: Preset) -> "Info":
        """Fill in what the preset says."""
        return cls(preset=preset.name)

    def run(self) -> None:
        """Print the tables."""
        print(Table.of(look_around(choose_runtime()), title="This machine"))
        if self.model is not None:
            print(Table.of(describe_folder(self.model), title=str(self.model)))
        else:
            print(Table.of(describe_preset(get_preset(self.preset)), title=self.preset))
