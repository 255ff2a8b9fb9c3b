"""The verbs that serve a model to others."""

import os
import socket
from dataclasses import dataclass

from dimgpt.commands.models import Writer


@dataclass(frozen=True, kw_only=True, slots=True)
class Serve(Writer):
    """Flags of `serve`."""

    host: str = "127.0.0.1"
    """Where to listen: only this machine reaches the default, 0.0.0.0 is open to the network."""
    port: int = 8000
    """0 takes a free one."""
    name: str | None = None
    """What clients call the model; the name of its folder if not given."""
    max_batch: int = 32
    """Texts that are written at the same time; others wait."""

    def run(self) -> None:
        """Serve until Ctrl-C; the variable DIMGPT_API_KEY sets a key that clients must send."""
        try:
            import uvicorn

            from dimgpt.serving.api import create_app
        except ImportError as error:
            raise ImportError(
                f"{error.name} is not installed: run pip install 'dimgpt[serve]'"
            ) from error
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
        with _listener(self.host, self.port) as listener:
            port = listener.getsockname()[1]
            print(f"{name} is at http://{self.host}:{port}/v1; Ctrl-C ends", flush=True)
            config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
            uvicorn.Server(config).run(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise OSError(f"cannot listen at {host}:{port} ({error}): choose another --port") from error
