import importlib.util
import sys
from pathlib import Path

import pytest

# Tests are imported by path (`--import-mode=importlib`), so what they share is, too.
_PATH = Path(__file__).parent / "hub_server.py"
_SPEC = importlib.util.spec_from_file_location("hub_server", _PATH)
sys.modules["hub_server"] = _MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)


@pytest.fixture
def hub_server():
    """A hub on the loopback interface, without repositories."""
    with _MODULE.HubServer() as hub:
        yield hub
