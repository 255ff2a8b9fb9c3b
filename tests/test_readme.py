"""The README and the pages of docs/: recipes run as they are written, commands have real flags."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from fault_rows import ROWS
from served import serving
from test_coming_from import DATA, TEXTS

from dimgpt.cli import _read_flags
from dimgpt.commands import VERBS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# The commands of the third page run in `test_coming_from.py`.
OURS = [page for page in PAGES if page.name != "coming-from.md"]
TOY_MODEL = (
    "--model.context-length 32 --model.window-size 8 --model.embedding-dim 16 --device cpu "
    "--model.num-layers 1 --model.num-heads 2 --model.num-kv-heads 1 --model.ffn-dim 24"
)
TOY_RUN = (
    "--training.max-steps 3 --training.batch-size 2 --training.warmup-steps 1 "
    "--training.precision fp32 --training.validation-batches 1"
)
TOY_FLAGS = {
    "prepare": "--data.vocab-size 300 --data.num-workers 1",
    "train": f"{TOY_MODEL} {TOY_RUN}",
    "finetune": f"{TOY_RUN} --device cpu",
    "prefer": f"{TOY_RUN} --device cpu",
    "generate": "--sampling.max-new-tokens 5",
    "chat": "--sampling.max-new-tokens 5",
    "doctor": "--device cpu",
}
DEMO_TEXTS = [*TEXTS, "--preferences", "demo://preferences/60", *DATA]


def between_marks(page, name):
    """Return the lines of the code between the marks of a recipe."""
    text = (ROOT / page).read_text(encoding="utf-8")
    (content,) = re.findall(rf"<!-- recipe: {name} -->(.*?)<!-- /recipe -->", text, re.DOTALL)
    lines = content.strip().splitlines()
    assert lines[0].startswith("```")
    assert lines[-1] == "```"
    return lines[1:-1]


def recipe(name):
    """Return the words of each of our commands in a recipe of the README."""
    lines = [shlex.split(line, comments=True) for line in between_marks("README.md", name)]
    return [words for words in lines if words[:3] == ["python", "-m", "dimgpt"]]


# One process for all commands, since each would spend seconds on loading torch.
RUN_ALL = """
import json, runpy, sys
for words in json.loads(sys.argv[1]):
    print("$", *words)
    sys.argv = words
    runpy.run_module("dimgpt", run_name="__main__", alter_sys=True)
"""


def run(folder, commands):
    """Run commands one after another, as `python -m dimgpt` does, and return what they print."""
    arguments = [[*words[2:], *TOY_FLAGS.get(words[3], "").split()] for words in commands]
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps(arguments)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        input="Bonjour\n\n",
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a user's texts."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "my_texts").mkdir()
    for number in range(60):
        text = f"Il était une fois un chat, le numéro {number}. Il dort dans la cour et mange. " * 3
        (folder / "my_texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    with (folder / "my_chats.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [[f"Qui est le numéro {number} ?", "Un chat qui dort."] for number in range(40)]
        csv.writer(file).writerows([["user", "assistant"], *rows])
    return folder


@pytest.fixture(scope="module")
def shown(folder):
    """Return what all commands of the README's recipes print, in their order for one user."""
    commands, tour = recipe("own-data"), recipe("command-line")
    assert len(commands) == 5
    tour = [[*words, *DEMO_TEXTS] if words[3] == "prepare" else words for words in tour]
    # The input belongs to the chat, which reads it to its end: so it comes last.
    return run(folder, sorted([*commands, *tour], key=lambda words: words[3] == "chat"))


@pytest.mark.slow
def test_own_data_take_five_lines_from_texts_to_chat(folder, shown):
    prepared = shown.split("$ dimgpt train")[0]
    assert {"my_texts", "my_chats"} <= set(prepared.split())
    assert (folder / "models" / "mine-chat" / "model.safetensors").is_file()


@pytest.mark.slow
def test_the_command_line_goes_the_way_of_the_notebooks(folder, shown):
    for name in ("demo", "demo-chat", "demo-preferred"):
        assert (folder / "models" / name / "model.safetensors").is_file()
    assert "$ dimgpt compare demo mine" in shown


@pytest.mark.slow
def test_the_clients_of_the_serving_page_get_answers(folder, shown, capsys):
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    pytest.importorskip("openai", reason="openai is not installed")
    from dimgpt.config import SamplingConfig
    from dimgpt.pipeline.models import open_model
    from dimgpt.runtime import choose_runtime
    from dimgpt.serving.api import create_app

    model, tokenizer = open_model(
        folder / "models" / "mine-chat", runtime=choose_runtime(device="cpu")
    )
    sampling = SamplingConfig(max_new_tokens=5, seed=0)
    with serving(create_app("demo-chat", model.eval(), tokenizer, sampling)) as address:
        code = "\n".join(between_marks("docs/serving.md", "client"))
        exec(code.replace("http://127.0.0.1:8000", address), {})
        assert capsys.readouterr().out.strip()
        for line in between_marks("docs/serving.md", "curl"):
            words = shlex.split(line.replace("http://127.0.0.1:8000", address))
            answer = subprocess.run([*words, "-sS"], capture_output=True, text=True, check=True)
            assert "demo-chat" in answer.stdout
            assert "error" not in answer.stdout


def _with_verb(span):
    """Complete inline code such as `evaluate --split test`, or a flag with a value."""
    if span.startswith(tuple(f"{verb} -" for verb in VERBS)):
        return f"-m dimgpt {span}"
    part, _, rest = span.removeprefix("--").partition(".")
    verb = {"training": "train", "model": "train", "data": "prepare", "sampling": "generate"}
    is_flag = span.startswith("--") and " " in rest and part in verb
    return f"-m dimgpt {verb[part]} {span}" if is_flag else span


def our_commands(text):
    """Return verb and words of each of our commands in the shell code of a page."""
    blocks = re.findall(r"^```shell\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    spans = [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
    spans = [_with_verb(span) for span in spans]
    found = re.findall(r"-m dimgpt ([^'\n]+)", "\n".join([*lines, *spans]))
    found = [shlex.split(words, comments=True) for words in found]
    return [words for words in found if not {"--help", "VERB"} & set(words)]


@pytest.mark.slow
@pytest.mark.parametrize("page", OURS, ids=lambda page: page.name)
def test_the_commands_of_a_page_have_flags_that_exist(page):
    text = page.read_text(encoding="utf-8")
    for verb, *words in our_commands(text):
        _read_flags(verb, [word.replace("$SLURM_ARRAY_TASK_ID", "1") for word in words])


@pytest.mark.slow
@pytest.mark.parametrize("page", OURS, ids=lambda page: page.name)
def test_a_flag_that_stands_alone_is_one_of_a_verb(page, flags_of_verbs):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`(--[a-z][a-z.-]+[a-z])[` ]", text)
    assert set(named) - flags_of_verbs - {"--standalone", "--quiet"} == set()


@pytest.fixture(scope="module")
def flags_of_verbs():
    """Return the flags that the verbs with the most of them have."""
    import contextlib
    import io

    screen = io.StringIO()
    for verb in ("prepare", "train", "finetune", "evaluate", "serve", "import", "info", "generate"):
        with contextlib.redirect_stdout(screen), contextlib.suppress(SystemExit):
            _read_flags(verb, ["--help"])
    return set(re.findall(r"(--[a-z][a-z.-]+[a-z])", screen.getvalue()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_to_files_and_headings(page):
    for link in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", page.read_text(encoding="utf-8")):
        path, _, heading = (link[0] or link[1]).partition("#")
        if path.startswith(("http:", "https:")):
            continue
        target = (page.parent / path) if path else page
        assert target.exists(), f"{page.name} -> {path}"
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {
                re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings
            }


def test_the_pages_stay_short():
    for page in PAGES:
        limit = 250 if page.name == "README.md" else 199
        assert len(page.read_text(encoding="utf-8").splitlines()) <= limit, page.name


def test_the_table_of_faults_is_the_one_that_is_counted():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| (\d+) \| (.+?) \| .+ \| ([\d,]+) \|$", page, re.MULTILINE)
    assert {int(row): (name, int(number.replace(",", ""))) for row, name, number in shown} == ROWS
    assert [int(row) for row, _, _ in shown] == [*range(1, len(ROWS) + 1)]
    for text in (page, (ROOT / "README.md").read_text(encoding="utf-8")):
        assert f"faults: {len(ROWS)} of {len(ROWS)} rows" in text
