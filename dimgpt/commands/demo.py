"""The verb that runs the three notebooks."""

from dataclasses import dataclass
from pathlib import Path

from dimgpt.demo.notebooks import run_notebooks
from dimgpt.presets import Preset


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo:
    """Run the three notebooks on the demo corpus: data, two trainings, test."""

    output_dir: Path = Path("models/demo-runs/notebooks")
    """Gets the executed notebooks."""

    @classmethod
    def defaults(cls, preset: Preset) -> "Demo":
        """Return the defaults, which no preset changes."""
        return cls()

    def run(self) -> None:
        """Execute them, and say where everything is."""
        notebooks = run_notebooks(self.output_dir)
        print("\nThe executed notebooks:", *notebooks, sep="\n  ")
        print("The curves:", *sorted(self.output_dir.parent.glob("*/curves.png")), sep="\n  ")
        print("The models:\n  models/demo\n  models/demo-chat")
