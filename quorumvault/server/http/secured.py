"""TLS around one HTTP connection (protocol.py): the protocol of the socket, and the transport of the connection.

    socket ──bytes──▶ Secured ──what TLS opens, as much as the connection has room for──▶ Connection
           ◀─bytes──          ◀──────────────── what it writes ──────────────────────────

The connection exists from the first packet, as it does without TLS. So its deadline for a head covers the handshake. A stranger
in the handshake is an idle connection, counted and closed for others like any other. Bytes that wait to leave wait in the socket.

While the connection does not read, the socket is not read either: at most READ_BYTES and one record, read before, wait here. TLS
gets one record's worth at a time, and its content is delivered before the next, because TLS buffers never shrink.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol

from quorumvault.server.tls import RECORD_BYTES, TlsError, TlsSession

#: Most bytes of one read of the socket.
READ_BYTES: Final = 64 * 1024


class Around(Protocol):
    """The part of the connection that is called here."""

    def connection_made(self, transport: asyncio.Transport) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def get_buffer(self, sizehint: int) -> memoryview: ...

    def buffer_updated(self, nbytes: int) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class Secured(asyncio.Transport, asyncio.BufferedProtocol):
    """Used on the event loop's thread. ``buffer`` is shared: filled and emptied within one call from the loop.

    ``refused`` is called if the other side breaks the handshake or the stream.
    """

    def __init__(self, context: ssl.SSLContext, around: Around, buffer: memoryview, refused: Callable[[], None]) -> None:
        super().__init__()
        self._context = context
        self._around = around
        self._buffer = buffer
        self._refused = refused
        self._tls = TlsSession(context, server_side=True)
        #: Bytes of the socket that TLS has not got yet. A view of ``buffer`` within one call from the loop.
        self._raw: bytes | memoryview = b""
        self._wanted = True
        self._reading = True
        self._delivering = False
        self._closing = False
        #: It was said that nothing more comes: what is still read is counted by the connection, thrown away, and not opened.
        self._said_end = False

    # Called by the event loop.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._around.connection_made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._around.connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._closing:
            return
        if self._said_end:
            self._around.buffer_updated(nbytes)
            return
        came = self._buffer[:nbytes]
        self._raw = bytes(self._raw) + came if self._raw else came
        self._deliver()
        self._raw = bytes(self._raw)

    def pause_writing(self) -> None:
        self._around.pause_writing()

    def resume_writing(self) -> None:
        self._around.resume_writing()

    # Called by the connection.

    def write(self, data: Any) -> None:
        if self._closing or self._said_end:  # the other side has broken TLS, and it is not known everywhere yet
            return
        self._transport.write(self._tls.seal(data))

    def write_eof(self) -> None:
        """Say that nothing more comes."""
        if not self._said_end:
            self._transport.write(self._tls.end())
            self._said_end, self._raw = True, b""
            self._transport.write_eof()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._said_end and not self._transport.is_closing():
                self._transport.write(self._tls.end())
            self._transport.close()

    def abort(self) -> None:
        self._closing = True
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def pause_reading(self) -> None:
        self._wanted = False
        self._read(False)

    def resume_reading(self) -> None:
        self._wanted = True
        if not self._delivering:
            self._delivering = True
            asyncio.get_running_loop().call_soon(self._resume)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._context if name == "sslcontext" else self._transport.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    # Reading.

    def _resume(self) -> None:
        self._delivering = False
        self._deliver()

    def _deliver(self) -> None:
        """Give the connection the bytes that TLS opens, until it has no room or no more come; then continue to read."""
        if self._delivering:  # it is called from within, or will be called soon
            return
        self._delivering = True
        try:
            while not self._closing and self._step():
                pass
        except TlsError:
            self._break()
            return
        finally:
            self._delivering = False
        if not self._closing:
            self._write_tls()
            self._read(self._wanted)

    def _step(self) -> bool:
        """Give the connection what TLS has opened, or else TLS some more. Returns False if neither can be."""
        if self._takes and (count := self._tls.read_into(self._around.get_buffer(-1))):
            self._around.buffer_updated(count)
            return True
        if not self._raw or (self._tls.established and not self._takes):
            return False
        piece, self._raw = self._raw[:RECORD_BYTES], self._raw[RECORD_BYTES:]
        self._tls.feed(piece)
        self._write_tls()
        return True

    @property
    def _takes(self) -> bool:
        return self._wanted and not self._closing and not self._said_end

    def _read(self, read: bool) -> None:
        if read != self._reading and not self._transport.is_closing():
            self._reading = read
            if read:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    # TLS.

    def _write_tls(self) -> None:
        if (outgoing := self._tls.outgoing()) and not self._said_end:
            self._transport.write(outgoing)

    def _break(self) -> None:
        """Tell the other side, which did not prove itself or has ended TLS, the reason, and close."""
        if not self._tls.ended:
            self._refused()
        self._closing = True
        self._write_tls()
        self._transport.close()
