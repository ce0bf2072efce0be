"""A stand-in for Azure's store: the part of its interface that uploads, downloads and listings use."""

import contextlib
import hashlib
import http.server
import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from chaos.testbed.http_servers import Quiet, Server, serving

#: Any key will do, since signatures are not checked.
_KEY = "a2V5"
_DATE = "Sun, 29 Nov 2026 12:00:00 GMT"


class AzureStore:
    """One container. ``objects`` by name; ``blocks``: the parts sent of incomplete objects."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.blocks: dict[str, dict[str, bytes]] = {}


def _etag(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class _Handler(Quiet, http.server.BaseHTTPRequestHandler):
    store: AzureStore
    protocol_version = "HTTP/1.1"

    def _asked(self) -> tuple[str, dict[str, str], bytes]:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return unquote(url.path).removeprefix("/account/lake").removeprefix("/"), dict(parse_qsl(url.query)), body

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        name, query, _ = self._asked()
        if query.get("comp") == "list":
            self._answer(200, self._listing(query).encode())
        elif query.get("restype") == "container":
            self._answer(200, b"", ETag='"container"')
        elif name not in self.store.objects:
            self._answer(404, b"", **{"x-ms-error-code": "BlobNotFound"})
        else:
            content = self.store.objects[name]
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("x-ms-range", ""))
            start, end = (int(asked[1]), int(asked[2] or len(content))) if asked else (0, len(content))
            part = content[start : end + 1]
            told = {"ETag": f'"{_etag(content)}"', "x-ms-blob-type": "BlockBlob", "Content-Type": "application/octet-stream"}
            if asked:
                told["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
            self._answer(206 if asked else 200, part, **told)

    def _listing(self, query: dict[str, str]) -> str:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        folders, blobs = set(), []
        for name in sorted(each for each in self.store.objects if each.startswith(prefix)):
            rest = name.removeprefix(prefix)
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
            else:
                content = self.store.objects[name]
                told = (
                    f"<Etag>{_etag(content)}</Etag><Content-Length>{len(content)}</Content-Length><BlobType>BlockBlob</BlobType>"
                )
                told += f"<Last-Modified>{_DATE}</Last-Modified>"
                blobs.append(f"<Blob><Name>{escape(name)}</Name><Properties>{told}</Properties></Blob>")
        inner = "".join([*(f"<BlobPrefix><Name>{escape(each)}</Name></BlobPrefix>" for each in sorted(folders)), *blobs])
        results = f'<EnumerationResults ContainerName="lake"><Blobs>{inner}</Blobs><NextMarker /></EnumerationResults>'
        return f'<?xml version="1.0"?>{results}'

    def do_PUT(self) -> None:
        name, query, body = self._asked()
        if query.get("comp") == "block":
            self.store.blocks.setdefault(name, {})[query["blockid"]] = body
        elif self.headers.get("If-None-Match") == "*" and name in self.store.objects:
            self._answer(409, b"", **{"x-ms-error-code": "BlobAlreadyExists"})
            return
        elif query.get("comp") == "blocklist":
            sent = self.store.blocks.pop(name, {})
            self.store.objects[name] = b"".join(sent[each] for each in re.findall(r"<Latest>(.*?)</Latest>", body.decode()))
        else:
            self.store.objects[name] = body
        self._answer(201, b"", ETag='"new"')

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        told = {"Content-Length": str(len(body)), "Content-Type": "application/xml", "Last-Modified": _DATE, **headers}
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextlib.contextmanager
def azure() -> Iterator[tuple[str, AzureStore]]:
    """Yields the value for AZURE_STORAGE_CONNECTION_STRING, and the store."""
    store = AzureStore()
    with serving(Server(type("Handler", (_Handler,), {"store": store}))) as address:
        endpoint = f"http://{address}/account"
        yield f"AccountName=account;AccountKey={_KEY};BlobEndpoint={endpoint};DefaultEndpointsProtocol=http", store
