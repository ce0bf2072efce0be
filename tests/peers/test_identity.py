"""Two processes with one name, over real sockets: peers talk to one, and the other is told why they refuse it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec
import pytest

from quorumvault.config.addresses import Address
from quorumvault.config.limits import Timeouts
from quorumvault.server.peers import facts as saying
from quorumvault.server.peers.claims import Claims
from quorumvault.server.peers.frames import Envelope, Kind
from tests.rigs import links
from tests.rigs.certificates import node_pem
from tests.unit.server.peers.test_claims import Claimant

pytestmark = pytest.mark.usefixtures("run")

DISK = bytes.fromhex("0123456789abcdef") * 2


@dataclass
class Twin:
    """One of several processes of n1 that share a disk."""

    linked: links.Linked
    taken: list[str]


@contextlib.asynccontextmanager
async def twin(address: Address, boot: bytes, timeouts: Timeouts = links.TIMEOUTS) -> AsyncIterator[Twin]:
    taken: list[str] = []
    facts = links.facts_of("n1", boot=boot, disk=DISK)
    async with links.linking(address, facts=lambda: facts, on_taken=taken.append, timeouts=timeouts) as linked:
        yield Twin(linked, taken)


async def test_the_second_process_of_a_name_hears_that_the_first_one_lives_and_where(caplog: pytest.LogCaptureFixture) -> None:
    """Proves: one process per name."""
    async with links.serving(links.StubReplica(at_once=True)) as server, twin(server.address, b"first") as first:
        await first.linked.up()
        async with twin(server.address, b"second") as second:
            await links.eventually(lambda: second.taken)
            assert second.linked.changes == []
        asker = links.Asker(first.linked.link)
        asker.ask()
        await links.eventually(lambda: asker.settled)
        assert (first.linked.changes, first.taken) == ([True], [])
        assert server.connected["n1"].boot == b"first"
        reason = "n1 runs elsewhere already: its disk 01234567 is live at 127.0.0.1, seen by n2; stop one of them"
        assert set(second.taken) == {reason}
        assert f"came to nothing: refused: {reason}" in caplog.text


async def test_a_process_that_ended_leaves_its_name_at_once() -> None:
    async with links.serving(links.StubReplica()) as server:
        async with twin(server.address, b"first") as first:
            await first.linked.up()
        async with twin(server.address, b"second") as second:
            await second.linked.up()
            assert second.taken == []


async def test_a_process_that_is_cut_off_leaves_its_name_when_it_was_silent_and_does_not_get_it_back() -> None:
    async with (
        links.serving(links.StubReplica(), timeouts=msgspec.structs.replace(links.TIMEOUTS, silence=1.0)) as server,
        links.Relay(server.address).running() as relay,
        twin(relay.address, b"first", msgspec.structs.replace(links.TIMEOUTS, ping=0.1)) as first,
    ):
        await first.linked.up()
        relay.frozen = True
        async with twin(server.address, b"second", links.IMPATIENT) as second:
            await second.linked.up()
            assert second.taken == []
            relay.thaw()
            await links.eventually(lambda: first.taken)
            assert second.linked.changes == [True]


async def test_a_dialler_turns_away_the_listener_that_has_another_process_s_name() -> None:
    claims, holder, taken = Claims("n1"), Claimant(remote="10.0.0.7"), list[str]()
    claims.claim(holder, links.facts_of("n2", boot=b"first", disk=DISK))
    async with (
        links.serving(links.StubReplica(), facts=lambda: links.facts_of("n2", boot=b"second"), on_taken=taken.append) as server,
        links.linking(server.address, claims=claims) as linked,
    ):
        await links.eventually(lambda: holder.pings)
        assert not linked.link.up
        holder.pongs = holder.pings
        claims.answered(holder)
        await links.eventually(lambda: taken)
        assert taken[0] == "n2 runs elsewhere already: its disk 01234567 is live at 10.0.0.7, seen by n1; stop one of them"
        assert linked.changes == []
        claims.release(holder)
        await linked.up()


async def test_a_pong_that_nothing_asked_for_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with links.serving(links.StubReplica()) as server, links.RawDialler.connected(server.address) as dialler:
        await dialler.greet()
        dialler.send(Envelope(Kind.PONG, 0, saying.encode(links.facts_of("n1"))))
        assert await dialler.receive() == []
    assert "a message of kind 4 out of turn" in caplog.text


async def test_news_are_told_to_all_that_are_connected() -> None:
    facts = [links.facts_of("n2", established=False)]
    timeouts = Timeouts(ping=3000, silence=3600)
    async with (
        links.serving(links.StubReplica(), facts=lambda: facts[0], timeouts=timeouts) as server,
        links.linking(server.address, timeouts=timeouts) as linked,
    ):
        await linked.up()
        facts[0] = msgspec.structs.replace(facts[0], established=True)
        server.tell()
        await links.eventually(lambda: linked.link.facts == facts[0])


# Dialling at once, on request.

PATIENT = msgspec.structs.replace(links.TIMEOUTS, reconnect_first=3000, reconnect_last=3000)


@dataclass
class Failures:
    count: int = 0

    def __call__(self) -> None:
        self.count += 1


async def test_a_link_that_waits_for_its_next_attempt_dials_when_it_is_told_to() -> None:
    async with links.serving(links.StubReplica()) as server:
        address = server.address
    async with links.linking(address, timeouts=PATIENT) as linked:
        await links.eventually(lambda: linked.link.last_error)
        failures = Failures()
        linked.link.dial_now(failures)
        await links.eventually(lambda: failures.count)
        async with links.serving(links.StubReplica(), address):
            linked.link.dial_now(failures)
            await linked.up()
            linked.link.dial_now(failures)
        await linked.down()
        assert failures.count == 1


async def test_an_attempt_that_has_got_through_to_the_port_goes_on() -> None:
    accepted: list[asyncio.BaseTransport] = []

    class Mute(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.append(transport)

    listener = await asyncio.get_running_loop().create_server(Mute, "127.0.0.1", 0)
    async with links.linking(Address(*listener.sockets[0].getsockname()), timeouts=PATIENT) as linked:
        await links.eventually(lambda: accepted and linked.link._connection and linked.link._connection.under_way)
        connection, failures = linked.link._connection, Failures()
        linked.link.dial_now(failures)
        assert linked.link._connection is connection
        accepted[0].abort()  # type: ignore[attr-defined]
        await links.eventually(lambda: failures.count)
        assert len(accepted) == 1
    listener.close()
    await listener.wait_closed()


async def test_an_alert_that_refuses_the_certificate_is_an_answer() -> None:
    failures = Failures()
    async with (
        links.serving(links.StubReplica()) as server,
        links.linking(server.address, pem=node_pem("n1", ca="other"), timeouts=PATIENT) as linked,
    ):
        linked.link.dial_now(failures)
        await links.eventually(lambda: linked.link.last_error)
        linked.link.dial_now(failures)
        await links.eventually(lambda: failures.count)


async def test_a_refusal_is_an_answer_and_a_connection_that_breaks_before_one_is_not() -> None:
    failures, claims, holder = Failures(), Claims("n2"), Claimant()
    claims.claim(holder, links.facts_of("n1", boot=b"first"))
    async with links.serving(links.StubReplica(), claims=claims) as server, twin(server.address, b"second", PATIENT) as second:
        await links.eventually(lambda: holder.pings)
        second.linked.link.dial_now(failures)
        await server.close()
        await links.eventually(lambda: second.linked.link.last_error)
        assert failures.count == 0
        second.linked.link.dial_now(failures)
        await links.eventually(lambda: failures.count == 1)
        async with links.serving(links.StubReplica(), server.address, facts=lambda: links.facts_of("n2", cluster_id="other")):
            second.linked.link.dial_now(failures)
            await links.eventually(lambda: failures.count == 2)
            assert "cluster" in str(second.linked.link.last_error)
