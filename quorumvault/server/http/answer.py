"""The response to a successful request. It leaves in pieces; the request keeps its place until the last piece has left."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Final, TypeAlias

from starlette.types import Receive, Scope, Send

from quorumvault.server.http.dependencies import Content
from quorumvault.server.http.scope import connection_of

#: Most bytes handed to the server at once. It takes the next piece when this piece has left, so the node holds only one piece for
#: a client that reads slowly.
PIECE_BYTES: Final = 256 << 10
_WORTHWHILE: Final = 64 << 10
#: A part of an answer, whole or in pieces.
Part: TypeAlias = bytes | Iterator[bytes]
_NO_STORE: Final = (b"cache-control", b"no-store")


def splice(whole: bytes, hole: bytes, parts: Iterable[Part]) -> Content:
    """Return an answer with its first ``hole`` replaced by these parts, which are generated as the answer leaves."""
    before, _, after = whole.partition(hole)
    pieces = _gathered(chain((before,), parts, (after,)))
    first, second = next(pieces), next(pieces, None)
    return first if second is None else chain((first, second), pieces)


def splice_list(whole: bytes, elements: Iterable[Part]) -> Content:
    """Return an answer whose first empty list gets these elements, which are generated as the answer leaves."""
    return splice(whole, b"[]", chain((b"[",), _comma_parted(elements), (b"]",)))


def _comma_parted(elements: Iterable[Part]) -> Iterator[Part]:
    comma = b""
    for element in elements:
        yield comma
        yield element
        comma = b","


def _gathered(parts: Iterable[Part]) -> Iterator[bytes]:
    """Yield the same bytes in pieces of at least ``_WORTHWHILE`` bytes, except the last one. There is at least one piece."""
    gathered = bytearray()
    for part in parts:
        for piece in (part,) if isinstance(part, bytes) else part:
            gathered += piece
            if len(gathered) >= _WORTHWHILE:
                yield bytes(gathered)
                gathered.clear()
    yield bytes(gathered)


class AnswerResponse:
    """An ASGI application that sends ``content``: with its length if it is whole, chunked if it comes in pieces."""

    def __init__(self, content: Content, media_type: str, release: Callable[[], None]) -> None:
        self._content = content
        self._headers = [_NO_STORE, (b"content-type", media_type.encode())]
        self._release = release

    def give_up(self) -> None:
        """Release the place of an answer that will not be sent."""
        self._release()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = connection_of(scope)
        content = self._content
        try:
            if isinstance(content, bytes):
                self._headers.append((b"content-length", b"%d" % len(content)))
                content = iter((content,))
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            parts = _parts(content)
            part: bytes | None = next(parts)
            while part is not None and not (connection is not None and connection.ended):
                following = next(parts, None)
                await send({"type": "http.response.body", "body": part, "more_body": following is not None})
                part = following
        finally:
            if connection is None:
                self._release()
            else:
                connection.when_sent(self._release)


def _parts(pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if len(piece) <= PIECE_BYTES:
            yield piece
        else:
            for start in range(0, len(piece), PIECE_BYTES):
                yield piece[start : start + PIECE_BYTES]
