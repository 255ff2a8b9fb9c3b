"""The verbs about models on disk, and what they weigh."""

from dataclasses import dataclass
from pathlib import Path

from dimgpt.display.tables import Table
from dimgpt.info import (
    compare_cards,
    compare_sizes,
    describe_preset,
    describe_weights,
    look_around,
)
from dimgpt.presets import Preset, get_preset
from dimgpt.runtime import choose_runtime, peak_flops


@dataclass(frozen=True, kw_only=True, slots=True)
class Info:
    """Show this machine, and the sizes of a preset or of a model folder."""

    preset: str
    """Preset to describe."""
    model: Path | None = None
    """Model folder, or weights of another system, to describe instead."""
    sizes: bool = False
    """Compare all presets instead: size, memory, speed here and on known cards."""

    @classmethod
    def defaults(cls, preset: Preset) -> "Info":
        """Fill in what the preset says."""
        return cls(preset=preset.name)

    def run(self) -> None:
        """Print the tables."""
        runtime = choose_runtime()
        if self.sizes:
            flops = peak_flops(runtime)
            print(Table.of(compare_sizes(flops), title=f"At half of {flops:.3g} FLOP/s, this peak"))
            print(Table.of(compare_cards(), title="Pretraining at half of a card's peak"))
            return
        print(Table.of(look_around(runtime), title="This machine"))
        if self.model is not None:
            print(Table.of(describe_weights(self.model), title=str(self.model)))
        else:
            print(Table.of(describe_preset(get_preset(self.preset)), title=self.preset))
