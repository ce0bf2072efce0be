"""A stand-in for Google's store: the part of its JSON interface that uploads, downloads and listings use."""

import contextlib
import hashlib
import http.server
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from chaos.testbed.http_servers import Quiet, Server, serving


class GoogleStore:
    """One bucket. ``objects`` by name; ``sessions``: uploads that are neither complete nor discarded."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.sessions: dict[str, tuple[str, bytearray, bool]] = {}
        self.numbers = itertools.count(1)

    def told(self, name: str) -> dict[str, Any]:
        content = self.objects[name]
        etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return {"name": name, "bucket": "lake", "size": str(len(content)), "etag": etag, "generation": "1"}


class _Handler(Quiet, http.server.BaseHTTPRequestHandler):
    store: GoogleStore
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        bucket, _, name = url.path.partition("/o/")
        name = unquote(name)
        if not name:
            found = [self.store.told(each) for each in sorted(self.store.objects) if each.startswith(query.get("prefix", ""))]
            self._answer(200, {"items": found} if bucket.endswith("/lake/o") else {})
        elif name not in self.store.objects:
            self._answer(404, {"error": {"code": 404, "message": "Not Found"}})
        elif query.get("alt") == "media":
            content = self.store.objects[name]
            start, end = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "bytes=0-")).groups()  # type: ignore[union-attr]
            self._answer(206, content[int(start) : int(end) + 1 if end else None])
        else:
            self._answer(200, self.store.told(name))

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if query.get("uploadType") == "resumable":
            session = f"/session-of-an-upload/{next(self.store.numbers)}"
            self.store.sessions[session] = query["name"], bytearray(), query.get("ifGenerationMatch") == "0"
            self._answer(200, {}, Location=f"http://{self.headers['Host']}{session}")
            return
        name, sent, exclusive = self.store.sessions[url.path]
        sent += body
        if self.headers["Content-Range"].endswith("/*"):
            self._answer(308, b"", Range=f"bytes=0-{len(sent) - 1}")
            return
        del self.store.sessions[url.path]
        if exclusive and name in self.store.objects:
            self._answer(412, {"error": {"code": 412, "message": "conditionNotMet"}})
            return
        self.store.objects[name] = bytes(sent)
        self._answer(200, self.store.told(name))

    def do_DELETE(self) -> None:
        found = self.store.sessions.pop(urlsplit(self.path).path, None)
        self._answer(404 if found is None else 204, b"")

    def _answer(self, status: int, content: dict[str, Any] | bytes, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def google() -> Iterator[tuple[str, GoogleStore]]:
    """Yields the store's address, for STORAGE_EMULATOR_HOST, and the store."""
    store = GoogleStore()
    with serving(Server(type("Handler", (_Handler,), {"store": store}))) as address:
        yield f"http://{address}", store
