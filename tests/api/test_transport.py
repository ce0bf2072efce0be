"""Bodies as they arrive: in chunks, too slowly, too large, or not at all; many at once; and a node that stops in the middle."""

import asyncio
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.config.addresses import Address
from quorumvault.config.api_keys import KeyTable
from quorumvault.config.limits import Timeouts
from quorumvault.server.http.item_errors import unfit
from quorumvault.server.http.server import HttpServer, listening_socket
from tests.rigs.vault import JSON, LAB, SMALL, Connection, Raw, Rig, bearer

HEADERS = {**JSON, **bearer()}
#: Seconds after which a test that waits gives up.
PATIENCE = 10
LIMITS = SMALL


def connection(
    rig: Rig, headers: Mapping[str, str] | None = None, path: str = "/tokenize", body: bytes | None = None
) -> Connection:
    return Connection(rig.app, path, {**HEADERS, **(headers or {})}, body)


async def under_way(rig: Rig) -> asyncio.Task[Raw]:
    """A request that waits in the vault until the gate opens."""
    rig.vault.gate.clear()
    rig.vault.reached.clear()
    task = asyncio.create_task(connection(rig, body=b'{"values":["a"]}').run())
    await asyncio.wait_for(rig.vault.reached.wait(), PATIENCE)
    return task


def status(connection: Connection) -> int:
    return asyncio.run(connection.run()).status


def test_a_chunked_body_is_put_together(rig: Rig) -> None:
    request = connection(rig, {"Transfer-Encoding": "chunked"})
    for chunk in (b'{"val', b"", b'ues":["a', b'"]}'):
        request.chunk(chunk)
    request.chunk(b"", more=False)
    response = asyncio.run(request.run())
    assert response.json()["tokens"] == rig.tokens(["a"])


def test_a_chunked_body_is_stopped_where_it_is_too_large(rig: Rig) -> None:
    request = connection(rig, {"Transfer-Encoding": "chunked"})
    for _ in range(100):
        request.chunk(b" " * 1000)
    assert status(request) == 413
    assert request.received == 5  # the limit is 4096 bytes
    assert rig.admission.memory.held == 0


@pytest.mark.parametrize("length", ["4097", "4097".zfill(30), "10000000000000000000", "9" * 30])
def test_a_body_that_says_that_it_is_too_large_is_not_read(rig: Rig, length: str) -> None:
    request = connection(rig, {"Content-Length": length})
    assert status(request) == 413
    assert request.received == 0


@pytest.mark.parametrize("length", ["nonsense", "-1", "\u00b2"])
def test_a_length_that_is_none_does_not_do_away_with_the_limit(rig: Rig, length: str) -> None:
    request = connection(rig, {"Content-Length": length})
    for _ in range(10):
        request.chunk(b" " * 1000)
    assert status(request) == 413


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer x"}, bearer("reader"), {"Content-Type": "text/plain"}])
def test_the_body_of_a_request_that_is_refused_is_not_read(rig: Rig, headers: dict[str, str]) -> None:
    request = connection(rig, headers)
    assert status(request) in (401, 403, 415)
    assert request.received == 0


def test_a_body_that_does_not_come_is_given_up(rig: Rig) -> None:
    rig = Rig(limits=SMALL, timeouts=Timeouts(body=0.01))
    request = connection(rig)
    request.chunk(b'{"values":')
    response = asyncio.run(asyncio.wait_for(request.run(), PATIENCE))
    assert (response.status, response.json()["code"]) == (400, "malformed")
    assert "within 0.01 seconds" in response.json()["detail"]
    assert rig.admission.in_flight == 0
    assert [event.outcome for event in rig.events.written] == ["malformed"]


@pytest.mark.usefixtures("run")
async def test_a_body_that_stops_half_way_on_a_real_connection_is_given_up() -> None:
    rig = Rig(timeouts=Timeouts(body=0.05))
    listener = listening_socket(Path("test"), "api", Address("127.0.0.1", 0))
    listener.listen()
    server = HttpServer(rig.app, listener, rig.limits, rig.timeouts)
    server.start()
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    head = "".join(f"{name}: {value}\r\n" for name, value in {**HEADERS, "Content-Length": "100"}.items())
    writer.write(f"POST /tokenize HTTP/1.1\r\n{head}\r\n".encode() + b'{"values":')
    async with asyncio.timeout(PATIENCE):
        received = await reader.readuntil(b"}")
        assert b"400 Bad Request" in received
        assert b"within 0.05 seconds" in received
        writer.close()
        await server.stop()
    assert [event.outcome for event in rig.events.written] == ["malformed"]


def test_chunks_hold_bytes_until_they_are_answered(rig: Rig) -> None:
    with closing(rig.admission.enter(LAB, 0, None)) as other:
        other.memory.take(rig.limits.memory_bytes - 1000)
        request = connection(rig)
        request.chunk(b" " * 900)
        request.chunk(b" " * 900)
        response = asyncio.run(request.run())
        assert response.json()["code"] == "busy"
        assert rig.admission.memory.held == rig.limits.memory_bytes - 1000


def test_a_caller_who_leaves_gets_no_answer_and_a_line_in_the_log(rig: Rig) -> None:
    request = connection(rig)
    request.chunk(b'{"values":["a"')
    request.leave()
    asyncio.run(request.run_in_silence())
    assert request.sent == []
    assert rig.vault.asked == []
    assert [event.outcome for event in rig.events.written] == ["disconnected"]
    assert (rig.admission.in_flight, rig.admission.memory.held) == (0, 0)


@pytest.mark.usefixtures("run")
async def test_a_request_that_is_cancelled_has_a_line_too(rig: Rig) -> None:
    task = await under_way(rig)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(event.outcome, event.items) for event in rig.events.written] == [("cancelled", 1)]
    assert rig.admission.in_flight == 0


@pytest.mark.usefixtures("run")
async def test_a_full_node_refuses_and_takes_again_when_one_has_ended(rig: Rig) -> None:
    tasks = [await under_way(rig) for _ in range(SMALL.in_flight)]
    refused = await connection(rig).run()
    rig.vault.gate.set()
    answered = await asyncio.gather(*tasks)
    later = await connection(rig, body=b'{"values":["a"]}').run()
    assert [response.status for response in (refused, *answered, later)] == [429, 200, 200, 200]


@pytest.mark.usefixtures("run")
async def test_a_node_that_drains_ends_what_is_under_way(rig: Rig) -> None:
    task = await under_way(rig)
    rig.admission.refuse_new()
    idle = asyncio.create_task(rig.admission.idle())
    assert (await connection(rig).run()).status == 503
    assert not idle.done()
    rig.vault.gate.set()
    assert (await task).status == 200
    await asyncio.wait_for(idle, PATIENCE)


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
@pytest.mark.usefixtures("run")
async def test_others_have_their_turn_while_many_records_are_taken_apart(path: str) -> None:
    rig, turns = Rig(), 0
    rig.clock.step = 0.001
    body = b'{"records":[' + b",".join([b'{"ssn":"a"}'] * 200) + b"]}"
    task = asyncio.create_task(connection(rig, path=path, body=body).run())
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    assert (await task).status == 200
    assert turns >= 100


def test_keys_are_looked_up_anew_for_each_request(rig: Rig) -> None:
    assert rig.post("/tokenize", {"values": []}).status_code == 200
    rig.keys = KeyTable([], [])
    assert rig.post("/tokenize", {"values": []}).status_code == 401


@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=40)), max_size=6), st.binary(max_size=60))
def test_no_bytes_make_it_fail(headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    rig = Rig(limits=SMALL)
    request = connection(rig, body=body)
    request.headers.extend((name.lower(), value) for name, value in headers)
    response = asyncio.run(request.run())
    assert response.status in (200, 400, 401, 413, 415, 422, 429)
    assert [name for name, _ in response.headers].count(b"x-request-id") == 1
    assert len(rig.events.written) == 1


def test_values_in_records_are_judged_few_at_a_time() -> None:
    """Each check whether a value is a token takes microseconds, and a record may have 100,000 values."""
    rig = Rig()
    (token,) = rig.tokens(["a"])
    body = {"record": {"contacts": [{"phone": token}] * 2000}}
    with mock.patch("quorumvault.server.http.tokenize.unfit", wraps=unfit) as judged:
        answer = rig.post("/tokenize", body)
    assert (answer.json()["code"], answer.json()["errors"][99]["path"]) == ("already-tokenized", "$.contacts[99].phone")
    sizes = [len(call.args[0]) for call in judged.call_args_list]
    assert sum(sizes) == 2000
    assert max(sizes) <= 512
