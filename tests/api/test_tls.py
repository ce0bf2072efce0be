"""The API over TLS: who is let in, and what strangers see. test_connections.py has what is the same without TLS."""

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from quorumvault.config.addresses import Address
from quorumvault.config.certificates import api_credentials
from quorumvault.config.limits import Limits, Timeouts
from quorumvault.server.http.server import HttpServer, listening_socket
from quorumvault.server.telemetry.connection_refusals import Refusal
from tests.rigs.certificates import api_context, authority, ca_pem, node_pem, trusting
from tests.rigs.links import eventually

pytestmark = pytest.mark.usefixtures("run")

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    answer = f"{scope['scheme']} {scope['path']};".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(answer))]})
    await send({"type": "http.response.body", "body": answer})


@contextlib.asynccontextmanager
async def serving(
    context: Callable[[], ssl.SSLContext] = api_context, limits: Limits | None = None, timeouts: Timeouts | None = None
) -> AsyncIterator[tuple[int, Counter[Refusal]]]:
    listener = listening_socket(Path("test"), "api", Address("127.0.0.1", 0))
    counted = Counter[Refusal]()
    server = HttpServer(
        app, listener, limits or Limits(), timeouts or Timeouts(), None, lambda refusal: counted.update([refusal]), context
    )
    listener.listen()
    server.start()
    try:
        async with asyncio.timeout(20):
            yield listener.getsockname()[1], counted
    finally:
        await server.stop()


async def asked(port: int, context: ssl.SSLContext, name: str = "localhost") -> bytes:
    """The answer to a GET on a new connection. Raises OSError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    try:
        writer.write(GET)
        return await reader.readuntil(b";")
    except asyncio.IncompleteReadError as error:
        raise ConnectionError from error
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_both_versions_are_served_and_the_application_knows(version: ssl.TLSVersion) -> None:
    context = trusting()
    context.minimum_version = context.maximum_version = version
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # Python's default from 3.13 on
    async with serving() as (port, counted):
        assert (await asked(port, context)).endswith(b"https /a;")
        assert counted == {}


async def test_older_versions_are_not() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with serving() as (port, counted):
        with pytest.raises(OSError):
            await asked(port, context)
        await eventually(lambda: counted == {Refusal.NO_TLS: 1})


async def test_clients_check_whom_they_speak_with() -> None:
    async with serving() as (port, _):
        with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
            await asked(port, trusting(), "elsewhere.example")
        with pytest.raises(ssl.SSLCertVerificationError):
            await asked(port, ssl.create_default_context())
        assert await asked(port, trusting(), "127.0.0.1")


async def test_plain_http_gets_no_answer_and_is_counted() -> None:
    async with serving() as (port, counted):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in await reader.read()
        writer.close()
        assert counted == {Refusal.NO_TLS: 1}


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
async def test_a_handshake_that_does_not_end_ends_its_connection(said: bytes) -> None:
    async with serving(timeouts=Timeouts(head=0.05)) as (port, counted):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        assert counted == {Refusal.LATE: 1}


async def test_strangers_in_the_handshake_are_connections_and_make_room() -> None:
    """Mutant: if a connection only counted after its handshake, silent clients would hold ten descriptors, and more."""
    async with serving(limits=Limits(connections=10)) as (port, counted):
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]
        await eventually(lambda: counted[Refusal.CLOSED_FOR_ROOM] == 3)
        with contextlib.suppress(ConnectionResetError):
            assert await silent[0][0].read() == b""
        assert await asked(port, trusting())
        for _, writer in silent:
            writer.close()


async def test_a_new_certificate_is_for_new_connections() -> None:
    contexts = [api_context()]
    async with serving(lambda: contexts[-1]) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(), server_hostname="localhost")
        contexts.append(api_credentials(node_pem("n2"), None).context)
        serials = [_serial(writer), *[await _shown(port) for _ in range(2)]]
        assert len(set(serials)) == 2
        assert serials[1] == serials[2]
        writer.write(GET)
        assert await reader.readuntil(b";")
        writer.transport.abort()


async def _shown(port: int) -> Any:
    """The serial number of the certificate on a new connection."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(), server_hostname="localhost")
    try:
        return _serial(writer)
    finally:
        writer.transport.abort()


def _serial(writer: asyncio.StreamWriter) -> Any:
    return writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]


@pytest.mark.parametrize(("ca", "taken"), [("c", True), ("other", False), (None, False)])
async def test_clients_may_have_to_show_a_certificate(ca: str | None, taken: bool, tmp_path: Path) -> None:
    asking = api_credentials(node_pem("n1"), ca_pem(authority("c"))).context
    context = trusting()
    if ca is not None:
        (tmp_path / "client.pem").write_bytes(node_pem("n3", ca=ca))
        context.load_cert_chain(tmp_path / "client.pem")
    async with serving(lambda: asking) as (port, counted):
        if taken:
            assert await asked(port, context)
        else:
            with pytest.raises(OSError):
                await asked(port, context)
            await eventually(lambda: counted == {Refusal.NO_TLS: 1})
