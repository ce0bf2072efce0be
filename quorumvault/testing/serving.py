"""An ASGI application on a loopback port of this process, for clients that want sockets."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


@contextlib.contextmanager
def served(app: ASGIApp, is_away: Callable[[], bool] = lambda: False) -> Iterator[str]:
    """Serves ``app`` for the block, and yields its URL. Requests under way at the end are finished.

    While ``is_away()``, connections break as soon as something is sent over them.
    """

    class Protocol(HttpToolsProtocol):
        def data_received(self, data: bytes) -> None:
            if is_away():
                self.transport.abort()
            else:
                super().data_received(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, lifespan="off", http=Protocol, ws="none", log_level="critical", access_log=False)
        server = uvicorn.Server(config)
        # daemon: the process can exit even if it never leaves the block
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
