"""No code that runs what a file holds: looked for in every source file and every notebook."""

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for folder in ("dimgpt", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)
NOTEBOOKS = sorted(ROOT.glob("*.ipynb"))
MODULES = {"dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
CALLS = {"eval", "exec", "__import__", "os.system", "os.popen"}
CALLS |= {"pickle.load", "pickle.loads", "pickle.Unpickler"}  # its constants may be used
UNSAFE = {"weights_only": "False", "allow_pickle": "True", "shell": "True"}


def hits(source):
    """Return what would run, or open unsafely, the content of a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [one.name for one in node.names if one.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if f"{node.module}".split(".")[0] in {*MODULES, "pickle"} else []
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {option.arg: ast.unparse(option.value) for option in node.keywords}
            found += [name] if name in CALLS else []
            found += [name] if name == "torch.load" and "weights_only" not in options else []
            found += [arg for arg, value in options.items() if UNSAFE.get(arg) == value]
            found += ["trust_remote_code"] if "trust_remote_code" in options else []
    return found


@pytest.mark.parametrize(
    "line",
    [
        "pickle.load(path)",
        "from pickle import load",
        "import yaml",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "exec(text)",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_the_gate_sees_what_it_is_for(line):
    assert len(hits(f"def open_it(path):\n    {line}")) == 1
    assert hits("model.eval(); torch.load(path, weights_only=True)") == []


@pytest.mark.slow
def test_no_source_file_runs_what_a_file_holds(fault):
    assert {path: found for path in SOURCES if (found := hits(path.read_text("utf-8")))} == {}
    fault(18, len(SOURCES))


def test_no_notebook_runs_what_a_file_holds_or_comes_with_outputs(fault):
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for cell in cells:
            if cell["cell_type"] == "code":
                assert hits("".join(cell["source"])) == [], path
                assert cell["outputs"] == [], f"{path}: clear the outputs before committing"
    fault(18, len(NOTEBOOKS))
