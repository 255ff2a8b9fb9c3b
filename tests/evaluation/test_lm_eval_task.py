"""The pairs as a task of lm_eval: its files, and the same answers from the export."""

import json
from pathlib import Path

import pytest
import torch

from dimgpt.config import ExportConfig
from dimgpt.evaluation.french_probes import french_pairs
from dimgpt.evaluation.lm_eval_task import TASK_NAME, write_task
from dimgpt.evaluation.probes import score_pairs
from dimgpt.runtime import Runtime
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.weights.card import Card
from dimgpt.weights.export.exporter import export_model
from dimgpt.weights.originals import load_original

CPU = Runtime(device=torch.device("cpu"), precision="fp32")
FIXTURES = Path(__file__).parents[1] / "fixtures"


def test_the_task_holds_every_pair_once_and_names_its_files(tmp_path):
    write_task(tmp_path / "task", french_pairs())
    group = json.loads((tmp_path / "task" / f"{TASK_NAME}.yaml").read_text(encoding="utf-8"))
    found = []
    for name in group["task"]:
        kind = name.removeprefix(f"{TASK_NAME}_")
        task = json.loads((tmp_path / "task" / f"{kind}.yaml").read_text(encoding="utf-8"))
        assert task["task"] == name
        path = tmp_path / "task" / f"{kind}.jsonl"
        assert task["dataset_kwargs"]["data_files"]["test"] == str(path.resolve())
        records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        found += [(kind, record["right"], record["wrong"]) for record in records]
    assert found == french_pairs()


@pytest.mark.slow
def test_lm_eval_counts_on_the_export_what_we_count(tmp_path):
    lm_eval = pytest.importorskip("lm_eval", reason="lm_eval is not installed")
    from lm_eval.tasks import TaskManager

    sizes = {"num_heads": 4, "num_kv_heads": 2, "window_size": 16, "context_length": 128}
    model = load_original(FIXTURES / "dimensiongpt" / "tiny.pt", sizes=sizes).model
    tokenizer = Tokenizer.load(FIXTURES / "dimensiongpt_sampling" / "vocab_512.txt")
    pairs = [pair for pair in french_pairs() if pair.kind in ("tense", "facts")][::4]
    rows = score_pairs(model, tokenizer, pairs, runtime=CPU)
    assert not any(row.left_out for row in rows)
    config = ExportConfig(target="transformers")
    folder = export_model(model, tokenizer, tmp_path / "export", config, card=Card())
    write_task(tmp_path / "task", pairs)
    measured = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(folder), "dtype": "float32"},
        tasks=[TASK_NAME],
        task_manager=TaskManager(include_path=str(tmp_path / "task"), include_defaults=False),
        device="cpu",
        batch_size=64,
        bootstrap_iters=0,
    )["results"]
    found = {
        name.removeprefix(f"{TASK_NAME}_"): each["acc,none"] for name, each in measured.items()
    }
    found["all"] = found.pop(TASK_NAME)
    assert found == pytest.approx({row.kind: row.accuracy for row in rows})
