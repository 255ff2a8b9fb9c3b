"""A run on one line: a bar with loss, accuracy, learning rate, speed and time left.

Plain text on standard error, so that it looks the same in a terminal, in every notebook, and in a
notebook that runs without anyone watching.
"""

from typing import Any

from tqdm import tqdm


class ProgressBar:
    """Observer that moves a bar with every step, and writes samples above it."""

    def __init__(self, *, description: str) -> None:
        self._bar = tqdm(desc=description, unit="step", dynamic_ncols=True)

    def __call__(self, record: dict[str, Any]) -> None:
        """Show a record of the history."""
        if record["kind"] == "start":
            self._bar.total = record["max_steps"]
            self._bar.initial = self._bar.n = record["step"]  # time left counts this sitting only
            changes = "; ".join(f"{name} {change}" for name, change in record["changes"].items())
            if record["step"] > 0:
                self._bar.write(f"going on at step {record['step']:,} {changes}".rstrip())
        elif record["kind"] == "sample":
            self._bar.write(f"step {record['step']:,}: {record['text']}")
        elif record["kind"] == "step":
            self._bar.set_postfix_str(_values(record), refresh=False)
            self._bar.update(record["step"] - self._bar.n)
            if self._bar.n >= (self._bar.total or 0):
                self._bar.close()


def _values(record: dict[str, Any]) -> str:
    return (
        f"loss {record['loss_average']:.3f}, accuracy {record['accuracy_average']:.1%}, "
        f"rate {record['learning_rate']:.1e}, {record['tokens_per_second']:,.0f} tokens/s, "
        f"MFU {record['mfu']:.0%}"
    )
