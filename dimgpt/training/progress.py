"""A run on one line: a bar with loss, accuracy, learning rate, speed and time left.

Plain text on standard error, so that it looks the same in a terminal, in every notebook, and in a
notebook that runs without anyone watching.
"""

from typing import Any

from tqdm import tqdm


class ProgressBar:
    """Observer that moves a bar with every step, and writes samples above it.

    The bar appears when the run starts; `close` ends its line if the run stops early.
    """

    def __init__(self, *, description: str) -> None:
        self._description = description
        self._bar: Any = None
        self._validation = ""

    def __call__(self, record: dict[str, Any]) -> None:
        """Show a record of the history."""
        if record["kind"] == "start":
            self._start(record)
        elif record["kind"] == "sample":
            self._bar.write(f"step {record['step']:,}: {record['text']}")
        elif record["kind"] == "validation":
            self._validation = _validation(record)
        elif record["kind"] == "step":
            self._bar.set_postfix_str(_values(record) + self._validation, refresh=False)
            self._bar.update(record["step"] - self._bar.n)
            if self._bar.n >= self._bar.total:
                self.close()

    def close(self) -> None:
        """Leave the bar as it is, and the line below it to others."""
        if self._bar is not None:
            self._bar.close()

    def _start(self, record: dict[str, Any]) -> None:
        step, last = record["step"], record["max_steps"]
        if step >= last:
            tqdm.write(f"the run is at step {step:,} of {last:,} already: nothing is left to train")
            return
        if step > 0:
            changes = "; ".join(f"{name} {change}" for name, change in record["changes"].items())
            tqdm.write(f"going on at step {step:,} {changes}".rstrip())
        # `initial`: the time left counts this sitting only.
        self._bar = tqdm(
            desc=self._description, unit="step", dynamic_ncols=True, initial=step, total=last
        )


def _values(record: dict[str, Any]) -> str:
    skipped = f", {record['num_skipped']} skipped" if record.get("num_skipped") else ""
    if record["loss_average"] is None:  # no update has counted yet
        return skipped.removeprefix(", ")
    return (
        f"loss {record['loss_average']:.3f}, accuracy {record['accuracy_average']:.1%}, "
        f"rate {record['learning_rate']:.1e}, {record['tokens_per_second']:,.0f} tokens/s, "
        f"MFU {record['mfu']:.0%}{skipped}"
    )


def _validation(record: dict[str, Any]) -> str:
    shown = f", validation {record['loss']:.3f}"
    if "accuracy" in record:
        shown += f", {record['accuracy']:.1%}"
    if "bits_per_byte" in record:
        shown += f", {record['bits_per_byte']:.3f} bits/byte"
    return shown
