"""The rules of the house, stated as a test."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dimgpt"
# A room may import those of the floors below its own, never its neighbours.
FLOORS = (
    {
        "config",
        "settings",
        "files",
        "partial_file",
        "runtime",
        "compilation",
        "hub",
        "workers",
        "installation",
    },
    {"text", "model"},
    {"data", "weights"},
    {"demo"},
    {"data.preparing", "data.reading"},
    {"training", "generation", "evaluation", "inspection"},
    {"presets", "display", "demo.score"},
    {"serving"},
    {
        "info",
        "sizing",
        "doctor",
        "verification",
        "workspace",
        "pipeline",
        "commands",
        "cli",
        "__main__",
    },
)
OPTIONAL = {
    "papermill",
    "IPython",
    "datasets",
    "huggingface_hub",
    "datatrove",
    "flash_attn",
    "gguf",
    "datasketch",
    "py3langid",
    "wandb",
    "trackio",
}
# Of one room, which is imported only when it is used.
SERVERS = {"fastapi", "starlette", "pydantic", "uvicorn", "gradio", "dimgpt.serving"}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(module):
    """Return the longest beginning of a module's name that stands on a floor."""
    parts = module.split(".")[1:]
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((name for name in names if any(name in rooms for rooms in FLOORS)), "__init__")


def floor(name):
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node, f"{node.module}"
        elif isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    if room(module) == "__init__":
        return
    top = len(FLOORS) - 1
    for _, imported in imports(path):
        if imported.startswith("dimgpt.") and room(imported) != room(module):
            mine, theirs = floor(room(module)), floor(room(imported))
            assert theirs < mine or (theirs, mine) in {(0, 0), (top, top)}, (
                f"{module} -> {imported}"
            )


@pytest.mark.slow
def test_only_what_reads_demo_texts_knows_the_demo():
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        if any(name.startswith("dimgpt.demo") for _, name in imports(path))
    }
    known = {name for name in found if not name.startswith("demo/")}
    assert known == {"data/preparing/blocks.py", "pipeline/training.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_optional_packages_are_imported_inside_a_function(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
            assert not OPTIONAL & {name.split(".")[0] for name in names}


@pytest.mark.slow
def test_what_serves_is_imported_where_it_is_used_only():
    for path in FILES:
        if path.parent.name == "serving":
            continue
        at_the_top = set(ast.parse(path.read_text(encoding="utf-8")).body)
        for node, imported in imports(path):
            if SERVERS & {imported.split(".")[0], ".".join(imported.split(".")[:2])}:
                assert path.name == "serving.py"
                assert node not in at_the_top


@pytest.mark.slow
def test_an_optional_package_is_imported_in_one_file_only():
    users = {name: set() for name in OPTIONAL}
    for path in FILES:
        for _, imported in imports(path):
            if imported.split(".")[0] in OPTIONAL:
                users[imported.split(".")[0]].add(path.name)
    assert all(len(files) <= 1 for files in users.values()), users


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_readable(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 45, f"{node.name} is too long"
        assert not (isinstance(node, ast.ImportFrom) and node.names[0].name == "*")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_commands_print(path):
    if path.parent.name != "commands" and path.name != "cli.py":
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.Call) or ast.unparse(node.func) != "print"


@pytest.mark.slow
@pytest.mark.parametrize(
    "load",
    [
        "import dimgpt",
        "import dimgpt.data.preparing.encoding",  # what the processes that encode texts are sent
        "import runpy; runpy.run_module('dimgpt', run_name='__mp_main__')",  # and load before it
    ],
)
def test_what_each_process_loads_is_without_torch(load):
    code = f"{load}; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("name", ["create_data", "training", "testing"])
def test_a_notebook_is_stripped_thin_and_parameterised(name):
    book = json.loads((ROOT / f"{name}.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert [cell["metadata"].get("tags") for cell in cells].count(["parameters"]) == 1
    for cell in cells:
        source = "".join(cell["source"])
        assert cell["execution_count"] is None
        assert "parameters" in cell["metadata"].get("tags", []) or len(source.splitlines()) <= 8
        tree = ast.parse(source)
        banned = ast.FunctionDef | ast.ClassDef | ast.Try | ast.While
        assert not [node for node in ast.walk(tree) if isinstance(node, banned)]


@pytest.mark.parametrize(
    ("spec", "commands"),
    [
        (SimpleNamespace(origin="dimgpt/__init__.py"), []),
        (None, [("pip", "install --quiet --no-deps git+{} Unidecode")]),
        (SimpleNamespace(origin=None), [("pip", "install --quiet --no-deps git+{} Unidecode")]),
    ],
    ids=["a clone", "Colab", "Colab, in a folder that holds a clone"],
)
def test_the_first_cell_installs_the_package_only_where_it_is_not(spec, commands, monkeypatch):
    books = [json.loads(path.read_text(encoding="utf-8")) for path in ROOT.glob("*.ipynb")]
    codes = [[cell for cell in book["cells"] if cell["cell_type"] == "code"] for book in books]
    (cell,) = {"".join(cells[0]["source"]) for cells in codes}  # the same in all notebooks
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    ran: list[tuple[str, str]] = []
    names = {"get_ipython": lambda: SimpleNamespace(run_line_magic=lambda *call: ran.append(call))}
    exec(cell, names)
    assert ran == [(magic, line.format(names["REPOSITORY"])) for magic, line in commands]


def test_the_tree_of_the_readme_names_every_folder_and_nothing_that_is_not_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = readme[readme.index("\ndimgpt/\n") :]
    named = re.findall(
        r"^(?: {2}){1,2}([a-z_]+(?:/|\.py))", tree[: tree.index("```")], re.MULTILINE
    )
    there = {f"{path.parent.name}/" for path in FILES} | {path.name for path in FILES}
    folders = {name for name in there if name.endswith("/")} - {"dimgpt/"}
    assert folders - set(named) == set()
    assert set(named) - there == set()
