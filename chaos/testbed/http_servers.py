"""HTTP servers of the standard library on loopback, as stand-ins for external services."""

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator


class Quiet(http.server.BaseHTTPRequestHandler):
    """A handler without a log."""

    def log_message(self, *given: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """A server on a free loopback port."""

    def __init__(self, handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)

    def handle_error(self, request: object, address: object) -> None:
        """Ignores errors: a client may disconnect early."""


@contextlib.contextmanager
def serving(server: Server) -> Iterator[str]:
    """Serves during the block. Yields HOST:PORT."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
