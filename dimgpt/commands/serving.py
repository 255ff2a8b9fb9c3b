"""The verbs `serve` (an API) and `web` (a page)."""

import functools
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dimgpt.commands.models import Writer
from dimgpt.config import SamplingConfig
from dimgpt.installation import packages_of
from dimgpt.pipeline.inspection import passages_of_model
from dimgpt.pipeline.models import open_model
from dimgpt.presets import get_preset
from dimgpt.runtime import choose_runtime
from dimgpt.workspace import Workspace


@dataclass(frozen=True, kw_only=True, slots=True)
class Serve(Writer):
    """Flags of `serve`."""

    host: str = "127.0.0.1"
    """Address to listen at: the default is for this machine only, 0.0.0.0 for the network."""
    port: int = 8000
    """0 takes a free port."""
    name: str | None = None
    """Name of the model for clients; the name of its folder if not given."""
    max_batch: int = 32
    """Number of texts that are generated at the same time; others wait."""

    def run(self) -> None:
        """Serve until Ctrl-C; the variable DIMGPT_API_KEY sets a key that clients must send."""
        try:
            import uvicorn  # noqa: F401 - fails here, before a model is opened, if not installed

            from dimgpt.serving.api import create_app
        except ImportError as error:
            raise _missing(error, "serve") from error
        model, tokenizer = self.open("finetuning")
        name = self.name or self.path("finetuning").stem
        key = os.environ.get("DIMGPT_API_KEY") or None
        app = create_app(
            name,
            model.eval(),
            tokenizer,
            self.sampling,
            host=self.host,
            api_key=key,
            max_batch=self.max_batch,
        )
        _serve(app, self.host, self.port, f"{name} is at {{}}/v1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Web:
    """Flags of `web`."""

    preset: str
    """Preset that gives the first model, the questions, system prompt and sampling settings."""
    models_root: Path = Path("models")
    """Folder with the model folders to choose from."""
    data_root: Path = Path("data")
    """Folder with the token files that the models were trained on."""
    host: str = "127.0.0.1"
    """Address to listen at: the default is for this machine only, 0.0.0.0 for the network."""
    port: int = 7860
    """0 takes a free port."""
    sampling: SamplingConfig

    def run(self) -> None:
        """Serve the page until Ctrl-C."""
        try:
            from dimgpt.serving.model_shelf import ModelShelf
            from dimgpt.serving.page import create_page
        except ImportError as error:
            raise _missing(error, "web") from error
        preset, runtime = get_preset(self.preset), choose_runtime()
        place = Workspace(preset=preset, models_root=self.models_root, data_root=self.data_root)
        shelf = ModelShelf(self.models_root, lambda path: open_model(path, runtime=runtime))
        first = place.model_dir("finetuning").name
        passages = functools.lru_cache(maxsize=2)(functools.partial(passages_of_model, place))
        app = create_page(
            shelf, preset, self.sampling, passages=passages, first=first, host=self.host
        )
        _serve(app, self.host, self.port, "the page is at {}")


def _serve(app: Any, host: str, port: int, place: str) -> None:
    """Print the address, then serve until Ctrl-C."""
    import uvicorn

    with _listener(host, port) as listener:
        address = f"http://{host}:{listener.getsockname()[1]}"
        print(f"{place.format(address)}; Ctrl-C ends", flush=True)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
        uvicorn.Server(config).run(sockets=[listener])
    raise KeyboardInterrupt  # `run` does not always pass on the Ctrl-C that ended it


def _missing(error: ImportError, extra: str) -> ImportError:
    return ImportError(f"{error.name} is not installed: run pip install {packages_of(extra)}")


def _listener(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise OSError(f"cannot listen at {host}:{port} ({error}): choose another --port") from error
