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
    """Yields its URL. Connections are taken from the start; what is under way at the end is finished.

    While ``is_away``, connections break as soon as something is sent over them.
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
        # daemon: a process that forgets to end the block can end
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
