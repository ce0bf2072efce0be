"""HTTP to one node: one request, one answer. No retries and no failover: they would hide the faults that a test looks for."""

import functools
import http.client
import json
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

#: Seconds to wait for an answer. A node gives up on a request after 5 s, so after this time it will never answer.
TIMEOUT = 10.0


@functools.cache
def trusting(cacert: Path) -> ssl.SSLContext:
    """Returns a TLS context that trusts these certificates, read once."""
    return ssl.create_default_context(cafile=cacert)


class Unanswered(Exception):
    """No answer came: refused, cut off, or too late. The request may or may not have taken effect."""


class Answer(NamedTuple):
    """Status and decoded JSON body (None if there is none)."""

    status: int
    body: Any


@dataclass(frozen=True, slots=True, repr=False)
class Api:
    """One node's API for the owner of one key. Every call raises ``Unanswered`` if no answer came."""

    address: str
    key: str | None = None
    #: A file of certificates to trust. If set, requests go over TLS.
    cacert: Path | None = None

    def get(self, path: str, timeout: float = TIMEOUT) -> Answer:
        return self._send("GET", path, None, timeout)

    def post(self, path: str, body: object, timeout: float = TIMEOUT) -> Answer:
        return self._send("POST", path, json.dumps(body).encode(), timeout)

    def tokenize(self, values: Iterable[str | int | bool | None]) -> Answer:
        return self.post("/tokenize", {"values": list(values)})

    def detokenize(self, tokens: Iterable[str | None]) -> Answer:
        return self.post("/detokenize", {"tokens": list(tokens)})

    def text(self, path: str, timeout: float = TIMEOUT) -> str:
        """Returns the content at a path as text, whatever its type."""
        return self._exchange("GET", path, None, timeout)[2].decode()

    def _send(self, method: Literal["GET", "POST"], path: str, body: bytes | None, timeout: float) -> Answer:
        status, kind, content = self._exchange(method, path, body, timeout)
        return Answer(status, json.loads(content) if kind.partition(";")[0].endswith("json") else None)

    def _exchange(self, method: Literal["GET", "POST"], path: str, body: bytes | None, timeout: float) -> tuple[int, str, bytes]:
        """Returns status, content type, and content."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        connection: http.client.HTTPConnection
        if self.cacert is None:
            connection = http.client.HTTPConnection(self.address, timeout=timeout)
        else:
            connection = http.client.HTTPSConnection(self.address, timeout=timeout, context=trusting(self.cacert))
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.getheader("Content-Type") or "", response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unanswered(f"{method} {path} at {self.address}: {error!r}") from error
        finally:
            connection.close()
