"""Answers leave in pieces, each made when its turn comes; what an answer holds is released when the last piece has left."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from quorumvault.server.http.answer import PIECE_BYTES, AnswerResponse, splice, splice_list
from quorumvault.server.http.scope import CONNECTION


class Line:
    """A connection that takes pieces until it is closed."""

    def __init__(self, takes: int = 1000) -> None:
        self.messages: list[Message] = []
        self.callbacks: list[Callable[[], None]] = []
        self._takes = takes

    @property
    def ended(self) -> bool:
        return len(self.messages) > self._takes

    def when_sent(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    async def send(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.messages[1:])


async def nothing() -> Any:
    raise AssertionError("an answer receives nothing")


def answer(content: Any, line: Line, scope: dict[str, Any] | None = None) -> list[str]:
    """Send the answer. Return the list of what is released, now or later."""
    released: list[str] = []
    response = AnswerResponse(content, "application/json", lambda: released.append("released"))
    asyncio.run(response({CONNECTION: line, "type": "http"} if scope is None else scope, nothing, line.send))
    return released


def test_a_whole_answer_has_a_length_and_goes_at_once() -> None:
    line = Line()
    assert answer(b'{"a":1}', line) == []
    start, body = line.messages
    headers = {b"cache-control": b"no-store", b"content-type": b"application/json", b"content-length": b"7"}
    assert (dict(start["headers"]), body["body"], body["more_body"]) == (headers, b'{"a":1}', False)


def test_what_it_holds_is_released_when_the_connection_says_that_it_left() -> None:
    line = Line()
    released = answer(b"x", line)
    assert released == []
    for callback in line.callbacks:
        callback()
    assert released == ["released"]


def test_pieces_are_made_one_by_one_and_no_more_once_nobody_reads() -> None:
    made: list[int] = []

    def pieces() -> Iterator[bytes]:
        for number in range(100):
            made.append(number)
            yield b"x" * 10

    answer(pieces(), Line(takes=5))
    assert len(made) <= 7


def test_a_large_piece_is_handed_over_in_parts() -> None:
    line = Line()
    answer(b"x" * (2 * PIECE_BYTES + 1), line)
    assert [len(message["body"]) for message in line.messages[1:]] == [PIECE_BYTES, PIECE_BYTES, 1]
    assert [message["more_body"] for message in line.messages[1:]] == [True, True, False]


def test_without_a_server_it_is_released_at_once() -> None:
    assert answer(b"x", Line(), {"type": "http"}) == ["released"]


@given(st.lists(st.integers(0, 70_000), max_size=8))
def test_a_list_is_the_same_in_pieces_as_at_once(sizes: list[int]) -> None:
    elements = [b'"' + b"x" * size + b'"' for size in sizes]
    content = splice_list(b'{"a":1,"b":[],"c":[]}', iter(elements))
    whole = content if isinstance(content, bytes) else b"".join(content)
    assert whole == b'{"a":1,"b":[' + b",".join(elements) + b'],"c":[]}'
    assert isinstance(content, bytes) or len(whole) >= 64 << 10


def test_one_part_in_the_place_of_another() -> None:
    assert splice(b'{"epoch":1,"record":null,"x":null}', b"null", [b'{"a":1}']) == b'{"epoch":1,"record":{"a":1},"x":null}'
