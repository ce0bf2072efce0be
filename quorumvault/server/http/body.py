"""A request's body: its media type (415), its length (413), its deadline to arrive, and the turns in which it is processed.

The type must be stated: `application/json`, alone or with `charset=utf-8`, or that of an Arrow stream where columns are accepted.
A body without a type, or of another type (curl -d sends a form's), is refused, and the error names the header to send. Compressed
bodies are refused, because their real size would only show when they are unpacked.

A body of up to 16 MiB is processed in steps, and between two steps the event loop serves everyone else: peers consider a node
that is silent for two seconds to be down, and a client that asks for one token should not wait for another client's ten thousand
records. A single call that cannot be divided, such as decoding 16 MiB, takes some 15 ms.
"""

import asyncio
import importlib.util
import re
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from quorumvault.errors import Malformed, TooLarge, UnsupportedMediaType
from quorumvault.server.http.memory import Hold
from quorumvault.server.http.scope import Headers

_JSON = re.compile(r'application/json(?:[ \t]*;[ \t]*charset=(?:utf-8|"utf-8"))?[ \t]*', re.IGNORECASE)
#: Bytes that take a millisecond or two to process. For less work a turn, which takes ten microseconds, does not pay off.
_LARGE: Final = 256 << 10
#: Seconds that one request may keep the loop.
_TURN_SECONDS: Final = 0.003


class Form(Enum):
    """The form of a body, and of its answer."""

    JSON = "application/json"
    ARROW = "application/vnd.apache.arrow.stream"


def arrow_installed() -> bool:
    """Return whether this node has the packages for Arrow. Does not load them."""
    return all(importlib.util.find_spec(package) is not None for package in ("numpy", "pyarrow"))


def form_of(headers: Headers, takes_arrow: bool) -> Form:
    """Return the form that the headers announce. Raises UnsupportedMediaType."""
    if headers.all(b"content-encoding"):
        raise UnsupportedMediaType("send the body as it is, without Content-Encoding")
    types = headers.all(b"content-type")
    if len(types) == 1 and _JSON.fullmatch(types[0]):
        return Form.JSON
    if takes_arrow and [kind.strip().lower() for kind in types] == [Form.ARROW.value]:
        if arrow_installed():
            return Form.ARROW
        raise UnsupportedMediaType(
            "this node reads no Arrow, since numpy or pyarrow is not installed (extra: analytics); send JSON"
        )
    raise UnsupportedMediaType(
        "send JSON and say so in one header, Content-Type: application/json; its only parameter is charset=utf-8"
    )


def declared_length(headers: Headers) -> int:
    """Return the length that the request announces; 0 if it announces none, and its bytes are counted as they come.

    The HTTP parser refuses several lengths, a length that is not a number, and a length beyond 64 bits.
    """
    text = next(iter(headers.all(b"content-length")), "")
    return int(text) if text.isascii() and text.isdigit() else 0


def require_length(declared: int, most: int) -> None:
    """Raises TooLarge for a body that is announced as too large, before any of it is read."""
    if declared > most:
        raise TooLarge(_too_large(most))


async def read_body(receive: Receive, memory: Hold, most: int, seconds: float | None) -> bytes:
    """Return the body, at most ``most`` bytes. Raises TooLarge, Busy, and ClientDisconnect if the caller leaves.

    Raises Malformed if it is not here within ``seconds``: the contract has no code for a slow body, and it cannot be read. None
    for a body that is here already: a timer costs more than the rest of this.
    """
    if seconds is None:
        return await _collect(receive, memory, most)
    try:
        async with asyncio.timeout(seconds):
            return await _collect(receive, memory, most)
    except TimeoutError:
        raise Malformed(f"the body did not arrive whole within {seconds:g} seconds; send less at once") from None


async def _collect(receive: Receive, memory: Hold, most: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        if size > most:
            raise TooLarge(_too_large(most))
        memory.grow_body(size)
        if chunk:
            chunks.append(chunk)
    if len(chunks) == 1:
        return chunks[0]
    memory.take(size)  # for a moment the body is there twice
    body = b"".join(chunks)
    memory.give_back(size)
    return body


def _too_large(most: int) -> str:
    return f"a body has at most {most} bytes here (GET /limits); send the items in several requests"


async def turn(size: int) -> None:
    """Let everyone else have a turn, between two steps of work on this many bytes."""
    if size > _LARGE:
        await asyncio.sleep(0)


class Turns:
    """The turns of one request. ``clock`` is monotonic, in seconds, and moves within a turn, unlike the loop's."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until = clock() + _TURN_SECONDS

    def over(self) -> bool:
        """Return whether this request has used up its turn."""
        return self._clock() >= self._until

    async def next(self) -> None:
        """Wait until everybody else has had a turn."""
        await asyncio.sleep(0)
        self._until = self._clock() + _TURN_SECONDS

    async def through(self, steps: Iterator[None]) -> None:
        """Take these steps, and let others have their turns in between."""
        for _ in steps:
            if self.over():
                await self.next()
