"""The version and the requirements of this package, also if it runs from its folder uninstalled."""

import importlib.metadata
import shlex
import tomllib
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]


def own_version() -> str:
    """Return the version of dimgpt."""
    try:
        return importlib.metadata.version("dimgpt")
    except importlib.metadata.PackageNotFoundError:
        return _project()["version"]


def own_requirements() -> list[str]:
    """Return what dimgpt needs, such as `torch==2.13.0` or `gguf>=0.19; extra == "export"`."""
    try:
        return importlib.metadata.requires("dimgpt") or []
    except importlib.metadata.PackageNotFoundError:
        pass
    lines = (_ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    needed = [line for line in lines if line and not line.startswith("#")]
    extras = _project()["optional-dependencies"].items()
    return needed + [f'{each}; extra == "{extra}"' for extra, names in extras for each in names]


def packages_of(extra: str) -> str:
    """Return the packages of an extra, as `pip install` takes them."""
    ending = f'extra == "{extra}"'
    needed = [one.partition(";")[0].strip() for one in own_requirements() if one.endswith(ending)]
    return shlex.join(needed)


def _project() -> dict[str, Any]:
    return tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
