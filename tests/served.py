"""A server on the loopback interface, for the tests of `dimgpt.serving`."""

import contextlib
import socket
import threading
import time


@contextlib.contextmanager
def serving(app):
    """Serve an application on the loopback interface, and give its address."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
