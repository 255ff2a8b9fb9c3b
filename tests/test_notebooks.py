"""The three notebooks run from first to last, at toy size, in a real kernel."""

import json
from pathlib import Path

import pytest

from dimgpt.training.journal import read_history

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


# Each kernel begins with this: the notebooks as they are, with a demo of toy size.
TOY_DEMO = """
import dataclasses
from dimgpt import presets
from dimgpt.demo import score

demo = presets.PRESETS["demo"]
presets.PRESETS["demo"] = dataclasses.replace(
    demo,
    model=dataclasses.replace(demo.model, num_layers=2),
    sampling=dataclasses.replace(demo.sampling, max_new_tokens=20),
)
score.score_models.__kwdefaults__.update(num_stories=4, questions_per_kind=6)
"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Run data, both trainings and test as a person would, and return the notebooks by name."""
    folder = tmp_path_factory.mktemp("notebooks")
    startup = folder / "ipython" / "profile_default" / "startup" / "toy_demo.py"
    startup.parent.mkdir(parents=True)
    startup.write_text(TOY_DEMO)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        return execute(folder), folder


def execute(folder):
    import papermill  # it takes two seconds

    roots = {"DATA_ROOT": str(folder / "data"), "MODELS_ROOT": str(folder / "models")}
    training = {**roots, "MAX_STEPS": 3, "BATCH_SIZE": 4, "SEED": 5}
    runs = {
        "create_data": {
            "SOURCES": ["demo://stories/400"],
            "CONVERSATIONS": ["demo://conversations/400"],
            "DATA_ROOT": roots["DATA_ROOT"],
            "VOCAB_SIZE": 400,
            "EXACT_DUPLICATES": True,
            "MAX_CHARACTERS": 300,
        },
        "training": {**training, "STAGE": "pretraining"},
        "finetuning": {**training, "STAGE": "finetuning"},
        "testing": roots,
    }
    books = {}
    for name, parameters in runs.items():
        source = ROOT / f"{'training' if name == 'finetuning' else name}.ipynb"
        books[name] = papermill.execute_notebook(
            source,
            folder / f"{name}.ipynb",
            parameters=parameters,
            kernel_name="python3",
            cwd=ROOT,
            progress_bar=False,
        )
    return books


def outputs(book, kind):
    return [
        output
        for cell in book.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if kind in output.get("data", {})
    ]


def test_every_cell_ran_and_nothing_warned(executed):
    books, _ = executed
    for name, book in books.items():
        for cell in book.cells:
            for output in cell.get("outputs", []):
                text = str(output.get("text", ""))
                assert output["output_type"] != "error"
                assert "Warning" not in text, f"{name}: {text}"


def test_the_models_of_both_stages_are_there_with_their_curves(executed):
    _, folder = executed
    models = folder / "models"
    for name in ("demo", "demo-chat"):
        files = {path.name for path in (models / name).iterdir()}
        assert {"config.json", "model.safetensors", "vocab.txt", "README.md"} <= files
    for stage in ("pretraining", "finetuning"):
        assert (models / "demo-runs" / stage / "curves.png").stat().st_size > 5_000


def test_both_stages_are_trained_with_the_seed_of_their_notebook(executed):
    for stage in ("pretraining", "finetuning"):
        recipe = executed[1] / "models" / "demo-runs" / stage / "run.json"
        assert json.loads(recipe.read_text())["preset"][stage]["seed"] == 5


def test_both_stages_of_the_demo_measure_copying_at_each_validation(executed):
    for stage in ("pretraining", "finetuning"):
        path = executed[1] / "models" / "demo-runs" / stage / "history.jsonl"
        validations = [r for r in read_history(path) if r["kind"] == "validation"]
        assert validations
        assert all(min(record["scores"].values()) > 0 for record in validations)


def test_settings_tables_coloured_tokens_and_pictures_are_shown(executed):
    books, _ = executed
    assert "<table" in str(outputs(books["create_data"], "text/html"))
    assert outputs(books["create_data"], "image/png")
    assert outputs(books["training"], "image/png")
    shown = str(outputs(books["finetuning"], "text/html"))
    assert "background:rgba" in shown
    assert "weight in the loss: <span" in shown
    assert "in the data" in shown
    assert "in the data" not in str(outputs(books["training"], "text/html"))
    assert "bits" in str(outputs(books["testing"], "text/html"))


def test_the_report_shows_what_was_dropped_and_ten_documents(executed):
    book = executed[0]["create_data"]
    tables = [str(output.data["text/html"]) for output in outputs(book, "text/html")]
    assert [table for table in tables if "characters per token" in table and "too long" in table]
    printed = "".join(
        str(output.get("text", "")) for cell in book.cells for output in cell.get("outputs", [])
    )
    assert printed.count("\n  · ") == 20
