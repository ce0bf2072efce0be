"""TLS around an HTTP connection: input is delivered in order as far as it is wanted, through buffers that stay small."""

import asyncio
import ssl
from typing import Any

import pytest

from quorumvault.server.http.secured import READ_BYTES, Secured
from quorumvault.server.tls import TlsSession
from tests.rigs.certificates import api_context
from tests.unit.server.test_tls import Watched


class _Socket:
    """The transport under TLS."""

    def __init__(self) -> None:
        self.written, self.reading = b"", True

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class _Connection:
    """Takes ``wanted`` bytes, and reads no more from then on."""

    def __init__(self) -> None:
        self.got, self.wanted = b"", 0
        self.buffer = memoryview(bytearray(5000))
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.got += self.buffer[:nbytes]
        if len(self.got) >= self.wanted:
            self.transport.pause_reading()

    def want(self, more: int) -> None:
        self.wanted = len(self.got) + more
        self.transport.resume_reading()


def secured(refused: list[str]) -> tuple[Secured, _Connection, _Socket, TlsSession]:
    """A secured connection after the handshake."""
    connection, socket = _Connection(), _Socket()
    made = Secured(api_context(), connection, memoryview(bytearray(READ_BYTES)), lambda: refused.append("TLS"))  # type: ignore[arg-type]
    made.connection_made(socket)  # type: ignore[arg-type]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = TlsSession(context, server_side=False)
    client.start()
    while not client.established:
        give(made, client.outgoing())
        client.feed(socket.written)
        socket.written = b""
    give(made, client.outgoing())
    return made, connection, socket, client


def give(to: Secured, data: bytes) -> None:
    """Pass in data as the loop does: after each call, others may overwrite the buffer."""
    for at in range(0, len(data), READ_BYTES):
        piece = data[at : at + READ_BYTES]
        to.get_buffer(-1)[: len(piece)] = piece
        to.buffer_updated(len(piece))
        to.get_buffer(-1)[:] = bytes(READ_BYTES)


@pytest.mark.parametrize("step", [1, 7000, 40_000, 1 << 20])
async def test_what_comes_is_delivered_as_it_is_wanted(step: int) -> None:
    refused: list[str] = []
    made, connection, socket, client = secured(refused)
    watched = Watched(made._tls)
    data = bytes(range(256)) * 800
    sealed = client.seal(data)
    connection.want(step)
    await asyncio.sleep(0)
    while sealed or len(connection.got) < len(data):
        if sealed and socket.reading:
            give(made, sealed[:READ_BYTES])
            sealed = sealed[READ_BYTES:]
        else:
            connection.want(max(step, 2000))
            await asyncio.sleep(0)
    assert connection.got == data
    assert 0 < watched.most_in < 34 * 1024
    made.write(data)
    assert watched.most_out < 17 * 1024
    client.take(socket.written)
    assert refused == []
