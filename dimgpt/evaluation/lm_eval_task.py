"""Writes minimal pairs as a task of EleutherAI's lm_eval; the task needs no network.

https://github.com/EleutherAI/lm-evaluation-harness: multiple choice without a question, scored by
`acc` as in its `blimp`. lm_eval is not imported.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dimgpt.evaluation.probes import Pair
from dimgpt.files import replace_file

TASK_NAME = "dimgpt_french"


def write_task(folder: Path, pairs: Iterable[Pair]) -> None:
    """Write a group of tasks, one a kind: `lm_eval --include_path FOLDER --tasks dimgpt_french`.

    The tasks contain absolute paths, so they must be written again if the folder is moved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kinds: dict[str, list[str]] = {}
    for kind, right, wrong in pairs:
        line = json.dumps({"right": right, "wrong": wrong}, ensure_ascii=False)
        kinds.setdefault(kind, []).append(line)
    for kind, lines in kinds.items():
        path = folder.resolve() / f"{kind}.jsonl"
        replace_file(path, ("\n".join(lines) + "\n").encode())
        _write_yaml(folder / f"{kind}.yaml", _task(kind, path))
    group = {
        "group": TASK_NAME,
        "task": [f"{TASK_NAME}_{kind}" for kind in kinds],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
    }
    _write_yaml(folder / f"{TASK_NAME}.yaml", group)


def _task(kind: str, path: Path) -> dict[str, Any]:
    return {
        "task": f"{TASK_NAME}_{kind}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "",
        "target_delimiter": "",  # a document does not begin with a space
        "doc_to_choice": "{{[right, wrong]}}",
        "doc_to_target": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def _write_yaml(path: Path, content: dict[str, Any]) -> None:
    # JSON is valid YAML.
    content = {**content, "metadata": {"version": 1.0}}
    replace_file(path, (json.dumps(content, indent=2) + "\n").encode())
