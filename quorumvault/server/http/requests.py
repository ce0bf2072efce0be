"""uvicorn's HTTP/1.1 protocol, inside the bounded connection (protocol.py).

uvicorn's protocol parses with httptools (llhttp, strict), makes ASGI scopes and runs the application. The connection gives it
bytes in parts that never extend past the end of a message, and only while no answer is owed. So uvicorn's queue of pipelined
requests stays empty. Its calls on the transport pass through a ``Wire``.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Protocol, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from quorumvault.server.http.scope import CONNECTION

#: A body up to this size leaves in one piece with its head: copying it is cheaper than a list of two for the kernel.
_JOINED_BYTES = 64 * 1024


class ConnectionCallbacks(Protocol):
    """The calls of uvicorn's protocol on the connection around it. ``ended``: nothing more is parsed or written."""

    ended: bool

    def on_head(self, length: int | None) -> bool:
        """A request's head is complete. ``length`` is its body's in bytes, None if chunked. Returns whether the connection may be
        used again after the answer."""

    def on_message_end(self) -> None:
        """The request is complete, trailers included."""

    def on_answered(self) -> None:
        """The answer was written."""

    def refuse(self, why: str) -> None:
        """Refuse bytes that are not HTTP as it is accepted here: 400, and the end of the connection."""

    def close(self) -> None:
        """Close once all has left: nothing more will be written."""

    def shut_down(self) -> None:
        """The server stops."""

    def hold_back(self, held_back: bool) -> None:
        """``held_back`` is True while the application wants no more of a body."""


class _NoTraceback(logging.Filter):
    """Logs only an exception's type: its text may contain values, and requests on a stopping node need no stack trace."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[0] is not None:
            record.msg, record.args = "a request ended by %s", (record.exc_info[0].__name__,)
            record.exc_info = None
        return True


_log = logging.getLogger("quorumvault.http")
_log.addFilter(_NoTraceback())


#: The detail of the 400 for bytes that are no HTTP, in uvicorn's own words.
_INVALID = "Invalid HTTP request received."


class _NotTaken(Exception):
    """Stops the parser. Its text is the detail of the answer."""


class Wire:
    """The transport that uvicorn sees. Keeps an answer's head until its body comes, and drops writes after the end."""

    def __init__(self, transport: asyncio.Transport, around: ConnectionCallbacks) -> None:
        self._transport = transport
        self._around = around
        #: The request whose answer's head was not written yet; None if it was.
        self._cycle: RequestResponseCycle | None = None
        self._head: bytes | None = None
        self.get_extra_info = transport.get_extra_info

    def begin(self, cycle: RequestResponseCycle) -> None:
        """The next answer belongs to this request."""
        self._cycle = cycle

    def write(self, data: bytes) -> None:
        if self._around.ended:  # otherwise the transport would raise, and the request would end with a stack trace
            return
        if self._cycle is not None and self._cycle.response_started:
            self._cycle, self._head = None, data  # to leave with the body: one call into the kernel less
        elif self._head is None:
            self._transport.write(data)
        else:
            head, self._head = self._head, None
            if len(data) <= _JOINED_BYTES:
                self._transport.write(head + data)
            else:
                # Not by writelines: asyncio's never pauses its protocol, up to Python 3.12.8 and 3.13.1, nor resumes it later.
                for piece in (head, data):
                    self._transport.write(piece)

    def flush(self) -> None:
        """Write a head that no body came after."""
        if self._head is not None and not self._around.ended:
            head, self._head = self._head, None
            self._transport.write(head)

    def close(self) -> None:
        self._around.close()

    def is_closing(self) -> bool:
        return self._around.ended or self._transport.is_closing()

    def pause_reading(self) -> None:
        self._around.hold_back(True)

    def resume_reading(self) -> None:
        self._around.hold_back(False)


class _Trailers(list[tuple[bytes, bytes]]):
    """Where uvicorn puts the fields after a body: nowhere, since trailers are never read as headers. No more than ``room``."""

    def __init__(self, room: int, too_many: str) -> None:
        super().__init__()
        self._room = room
        self._too_many = too_many

    def append(self, field: tuple[bytes, bytes]) -> None:
        if not self._room:
            raise _NotTaken(self._too_many)
        self._room -= 1


class Requests(HttpToolsProtocol):
    """The requests of one connection. ``fields``: header fields that each may have, and trailers likewise."""

    def __init__(self, around: ConnectionCallbacks, wire: Wire, fields: int, of_uvicorn: Mapping[str, Any]) -> None:
        super().__init__(**of_uvicorn)
        self.logger = _log
        #: Bytes of the last request's body that have come so far.
        self.body_bytes = 0
        self._around = around
        self._wire = wire
        self._most_fields = fields
        self._too_many_fields = f"The request has more than {fields} header fields, or trailers."
        self.connection_made(cast("asyncio.Transport", wire))

    def feed(self, part: memoryview) -> None:
        """Parse the next part, which ends where a message ends, or before."""
        try:
            self.parser.feed_data(part)
        except httptools.HttpParserUpgrade:
            pass  # another protocol was offered, and is not taken up: what follows is HTTP/1.1 (RFC 9110, 7.8)
        except httptools.HttpParserError as error:
            self._around.refuse(str(error.__context__) if isinstance(error.__context__, _NotTaken) else _INVALID)
            return
        # A part has room for a thousand fields; no more than these few are kept.
        if self.headers is not None and len(self.headers) > self._most_fields:
            self._around.refuse(self._too_many_fields)

    def answer_malformed(self, why: str) -> None:
        """Answer 400, and end the connection. The received part of a head is dropped before that."""
        if self.headers is not None:
            self.headers.clear()
        self.send_400_response(why)

    def give_up(self) -> None:
        """Show the application that the other side has left."""
        self.cycle.disconnected = True
        self.cycle.message_event.set()

    def shutdown(self) -> None:
        self._around.shut_down()

    # Called by the parser, which stops at an exception.

    def on_headers_complete(self) -> None:
        headers = self.headers
        if len(headers) > self._most_fields:
            raise _NotTaken(self._too_many_fields)
        length: int | None = 0
        for name, value in headers:
            if name == b"content-length":
                length = int(value)
            elif name == b"transfer-encoding":
                if value.strip().lower() != b"chunked":
                    raise _NotTaken("The only Transfer-Encoding that is taken here is chunked.")
                length = None
        self._check(length)
        cast("dict[str, Any]", self.scope)[CONNECTION] = self._around
        super().on_headers_complete()
        self.headers, self.body_bytes = _Trailers(self._most_fields, self._too_many_fields), 0
        self._wire.begin(self.cycle)
        if not self._around.on_head(length):
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._around.on_message_end()

    def on_response_complete(self) -> None:
        """In place of uvicorn's, which would start what waits, read on, and start a timer for each answer."""
        self.server_state.total_requests += 1
        self._wire.flush()
        self.flow.resume_reading()
        self._around.on_answered()

    def _check(self, length: int | None) -> None:
        """Raises _NotTaken for a head that is refused. ``length`` is the body's in bytes, None if it is chunked."""
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            raise _NotTaken("The request is not HTTP/1.1.")
        if self.parser.should_upgrade() and (length != 0 or self.parser.get_method() == b"CONNECT"):
            # The parser takes what follows for another protocol's.
            raise _NotTaken("The request has a body and offers to upgrade to another protocol: send it without Upgrade.")
