"""The files that say which packages are installed agree."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def pins(name):
    """Return the pinned packages of a file, names as the registry compares them."""
    found = re.findall(r"^([\w.-]+)==([^\s;\\]+)", (ROOT / name).read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in found}


def test_the_hashed_requirements_pin_the_same_versions():
    hashed = pins("requirements-hashed.txt")
    assert pins("requirements.txt").items() <= hashed.items(), "run make lock"


def test_every_package_of_the_hashed_requirements_has_a_hash():
    content = (ROOT / "requirements-hashed.txt").read_text()
    assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=\S)", content.strip()))
