"""A body before it is looked at: its media type (415), its length (413), the time it takes to arrive.

The type has to be said: `application/json`, alone or with `charset=utf-8`, or where columns are taken that of an Arrow stream.
A body of no type is not guessed at, and one of another type (curl -d sends a form's) is refused with the header to send.
Compressed bodies are refused: their real size would only show when they are unpacked.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
from enum import Enum

from starlette.datastructures import Headers
from starlette.requests import Request

from quorumvault.errors import Malformed, TooLarge, UnsupportedMediaType
from quorumvault.server.http.memory import Hold

_JSON = re.compile(r'application/json(?:[ \t]*;[ \t]*charset=(?:utf-8|"utf-8"))?[ \t]*', re.IGNORECASE)


class Form(Enum):
    """What a body is, and its answer too."""

    JSON = "application/json"
    ARROW = "application/vnd.apache.arrow.stream"


def arrow_installed() -> bool:
    """Whether this node has what Arrow needs, which is not loaded to find that out."""
    return all(importlib.util.find_spec(package) is not None for package in ("numpy", "pyarrow"))


def form_of(headers: Headers, takes_arrow: bool) -> Form:
    """The form that the headers announce. Raises UnsupportedMediaType."""
    if "content-encoding" in headers:
        raise UnsupportedMediaType("send the body as it is, without Content-Encoding")
    types = headers.getlist("content-type")
    if takes_arrow and [kind.strip().lower() for kind in types] == [Form.ARROW.value]:
        if arrow_installed():
            return Form.ARROW
        raise UnsupportedMediaType(
            "this node reads no Arrow, since numpy or pyarrow is not installed (extra: analytics); send JSON"
        )
    if len(types) != 1 or not _JSON.fullmatch(types[0]):
        raise UnsupportedMediaType(
            "send JSON and say so in one header, Content-Type: application/json; its only parameter is charset=utf-8"
        )
    return Form.JSON


def declared_length(headers: Headers) -> int:
    """The length that the request announces, 0 if none: then its bytes are counted as they come.

    That several lengths, or one that is no number, do not get here is the HTTP parser's business.
    """
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def require_length(declared: int, most: int) -> None:
    """Raises TooLarge for a body that announces itself as too large: nothing of it is read."""
    if declared > most:
        raise TooLarge(_too_large(most))


async def read_body(request: Request, memory: Hold, most: int, seconds: float) -> bytes:
    """The body, at most ``most`` bytes. Raises TooLarge, Busy, and Malformed if it is not here within ``seconds``.

    The contract has no word for a body that is too slow; it is one that cannot be read. ClientDisconnect if the caller leaves.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > most:
                    raise TooLarge(_too_large(most))
                memory.grow_body(size)
                if chunk:
                    chunks.append(chunk)
    except TimeoutError:
        raise Malformed(f"the body did not arrive whole within {seconds:g} seconds; send less at once") from None
    if len(chunks) == 1:
        return chunks[0]
    memory.take(size)  # for a moment the body is there twice
    body = b"".join(chunks)
    memory.give_back(size)
    return body


def _too_large(most: int) -> str:
    return f"a body has at most {most} bytes here (GET /limits); send the items in several requests"
