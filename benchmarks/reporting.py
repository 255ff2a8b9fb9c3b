"""Reports the figures of benchmarks, with their spread and the machine."""

import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any


def spread(values: Sequence[float], *, digits: int = 2) -> dict[str, float]:
    """Return the median of several runs, and their range."""
    return {
        "median": round(statistics.median(values), digits),
        "lowest": round(min(values), digits),
        "highest": round(max(values), digits),
    }


def report(name: str, measured: dict[str, Any]) -> None:
    """Print one JSON line; with `--write` in the command, also keep it in benchmarks/results/."""
    result = {
        "benchmark": name,
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        **measured,
    }
    print(json.dumps(result))
    if "--write" in sys.argv:
        folder = Path(__file__).parent / "results"
        folder.mkdir(exist_ok=True)
        path = folder / f"{result['date']}-{name}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
