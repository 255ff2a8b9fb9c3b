"""The three notebooks from first to last, run as a person would run them.

What their cells print comes to the terminal as they run.
"""

import os
import sys
from pathlib import Path
from typing import Any

_NOTEBOOKS: tuple[tuple[str, dict[str, str]], ...] = (
    ("create_data", {}),
    ("training", {"STAGE": "pretraining"}),
    ("training", {"STAGE": "finetuning"}),
    ("testing", {}),
)


def run_notebooks(output_dir: Path) -> list[Path]:
    """Execute the notebooks of the working directory with the demo preset.

    Args:
        output_dir: Gets the executed notebooks, outputs included.

    Returns:
        The executed notebooks.

    Raises:
        FileNotFoundError: The working directory is not the repository's.
        papermill.PapermillExecutionError: A cell failed; what ran until then is in the output.
    """
    written = []
    for number, (name, parameters) in enumerate(_NOTEBOOKS, start=1):
        source = Path(f"{name}.ipynb")
        if not source.exists():
            raise FileNotFoundError(f"{source} is not here: run from the repository's folder")
        output_dir.mkdir(parents=True, exist_ok=True)
        stage = "".join(f"-{value}" for value in parameters.values())
        target = output_dir / f"{number}-{name}{stage}.ipynb"
        print(f"\n━━ {number} of {len(_NOTEBOOKS)}: {source} {stage.removeprefix('-')}", flush=True)
        _print_reports(_execute(source, target, parameters))
        written.append(target)
    return written


def _execute(source: Path, target: Path, parameters: dict[str, str]) -> Any:
    """Run a notebook, with what its cells print on the terminal as it comes."""
    import papermill
    from traitlets.config import Config

    # Kernels listen on sockets of the file system instead of on the network, where there are any.
    transport = "tcp" if os.name == "nt" else "ipc"
    return papermill.execute_notebook(
        source,
        target,
        parameters={"PRESET": "demo", **parameters},
        kernel_name="python3",
        progress_bar=False,
        stdout_file=sys.stdout,
        stderr_file=sys.stderr,
        config=Config({"KernelManager": {"transport": transport}}),
        coalesce_streams=True,  # of a progress bar, keep the last line only
    )


def _print_reports(book: Any) -> None:
    """Print the tables of the cells tagged `report`; what cells print was shown as it came."""
    for cell in book.cells:
        for output in cell.get("outputs", []) if "report" in cell.metadata.get("tags", []) else []:
            print(output.get("data", {}).get("text/plain", ""))
