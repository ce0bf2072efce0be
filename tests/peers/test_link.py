"""What links and peer servers promise, over real sockets, on asyncio's own event loop and on uvloop's."""

import asyncio
import random
import time
from functools import partial

import msgspec
import pytest

from quorumvault.config.addresses import Address
from quorumvault.config.limits import Limits
from quorumvault.protocol.messages import AskView, EpochIs, Outgoing, RoundId
from quorumvault.protocol.peer import NoReply
from quorumvault.server.peers.link import reconnect_wait
from tests.rigs.links import (
    ANY_PORT,
    DISK,
    IMPATIENT,
    TIMEOUTS,
    VIEW,
    Asker,
    Relay,
    StubReplica,
    asking,
    eventually,
    facts_of,
    linking,
    local_node,
    request,
    serving,
)

pytestmark = pytest.mark.usefixtures("run")


async def test_a_request_gets_its_reply() -> None:
    async with serving(StubReplica(at_once=True)) as server, asking(server.address) as (linked, asker):
        asker.ask()
        await asker.has_settled(1)
        (reply,) = asker.replies
        assert isinstance(reply, EpochIs)
        assert reply.round.counter == 1
        assert linked.link.last_error is None
        assert linked.changes == [True]


async def test_a_peer_is_dialled_by_its_name() -> None:
    """A name may have several addresses, and nobody may listen at the first."""
    async with serving(StubReplica()) as server, linking(Address("localhost", server.address.port)) as linked:
        await linked.up()


async def test_a_name_that_nobody_has_is_told() -> None:
    async with linking(Address("n2.invalid", 1)) as linked:
        await eventually(lambda: linked.link.last_error)
        assert str(linked.link.last_error).startswith("cannot connect to n2.invalid:1: ")


async def test_a_peer_of_an_older_release_is_not_sent_what_it_does_not_know() -> None:
    replica, answers = StubReplica(at_once=True), list[object]()
    async with serving(replica, facts=lambda: facts_of("n2", protocol=1)) as server, linking(server.address) as linked:
        await linked.up()
        linked.link.send(Outgoing(AskView(RoundId(DISK, b"boot", 1), VIEW)), answers.append)
        assert answers == [NoReply(sent=False)]
        Asker(linked.link).ask()
        await replica.has_taken(1)


async def test_replies_find_their_requests_in_any_order() -> None:
    replica, rng = StubReplica(), random.Random(7)
    async with serving(replica) as server, asking(server.address) as (_, asker):
        asker.ask(500)
        await replica.has_taken(500)
        while replica.held:
            replica.answer(rng.randrange(len(replica.held)))
        await asker.has_settled(500)
        assert [reply.epoch for reply in asker.replies if isinstance(reply, EpochIs)] == list(range(1, 501))


async def test_large_messages_go_both_ways() -> None:
    async with serving(StubReplica(at_once=True, padding=9_000_000)) as server, linking(server.address) as linked:
        await linked.up()
        replies: list[object] = []
        large = msgspec.structs.replace(request(1), owner=b"o" * 12_000_000)
        linked.link.send(Outgoing(large), replies.append)
        await eventually(lambda: replies)
        (reply,) = replies
        assert isinstance(reply, EpochIs)
        assert reply.secret == "s" * 9_000_000


def records_seen(stream: bytearray) -> list[int]:
    """The lengths of the encrypted records (RFC 8446, 5.2) in a TLS stream. A frame of up to 16 KiB fits in one record."""
    lengths, at = [], 0
    while at < len(stream):
        kind, length = stream[at], int.from_bytes(stream[at + 3 : at + 5])
        at += 5 + length
        if kind == 23:
            lengths.append(length)
    assert at == len(stream)
    return lengths


async def test_what_is_sent_in_one_turn_of_the_loop_goes_out_as_one_frame() -> None:
    replica = StubReplica()
    async with serving(replica) as server, Relay(server.address).running() as relay, asking(relay.address) as (_, asker):
        asker.ask()
        await replica.has_taken(1)
        before = len(records_seen(relay.seen["dialler"]))
        asker.ask(100)
        await replica.has_taken(101)
        assert len(records_seen(relay.seen["dialler"])) == before + 1
        before = len(records_seen(relay.seen["listener"]))
        while replica.held:
            replica.answer()
        await asker.has_settled(101)
        assert len(records_seen(relay.seen["listener"])) == before + 1


async def test_a_shared_frame_stays_small() -> None:
    replica, limits = StubReplica(), Limits(coalesce_bytes=1000)
    async with (
        serving(replica) as server,
        Relay(server.address).running() as relay,
        linking(relay.address, limits=limits) as linked,
    ):
        await linked.up()
        Asker(linked.link).ask()
        await replica.has_taken(1)
        before = len(records_seen(relay.seen["dialler"]))
        Asker(linked.link).ask(100)
        await replica.has_taken(101)
        lengths = records_seen(relay.seen["dialler"])[before:]
        of_tls = 17  # the record's inner type and its tag
        assert max(lengths) <= 4 + 1000 + of_tls
        assert min(lengths[:-1]) > 900


async def test_without_a_connection_a_request_surely_was_not_sent() -> None:
    async with serving(StubReplica()) as server:
        nobody = server.address
    async with linking(nobody) as linked:
        asker = Asker(linked.link)
        asker.ask()
        assert asker.replies == [NoReply(sent=False)]
        await eventually(lambda: linked.link.last_error)
        assert "cannot connect" in str(linked.link.last_error)
        assert linked.changes == []


async def test_a_link_comes_back_when_its_peer_does() -> None:
    replica = StubReplica()
    async with serving(replica) as server, asking(server.address) as (linked, asker):
        asker.ask()
        await replica.has_taken(1)
        await server.close()
        await linked.down()
        assert "closed by the other side" in str(linked.link.last_error)
        await asker.has_settled(1)
        assert asker.replies == [NoReply(sent=True)]
        assert linked.link.facts == facts_of("n2")
        async with serving(StubReplica(at_once=True), server.address):
            await linked.up()
            assert linked.link.last_error is None
            asker.ask()
            await asker.has_settled(2)
            assert isinstance(asker.replies[1], EpochIs)
        assert linked.changes[:3] == [True, False, True]


async def test_a_link_follows_its_peer_to_another_address() -> None:
    async with serving(StubReplica()) as old, serving(StubReplica(at_once=True)) as new, linking(old.address) as linked:
        await linked.up()
        asker = Asker(linked.link)
        asker.ask()
        linked.link.move(old.address)
        assert linked.link.up
        linked.link.move(new.address)
        assert not linked.link.up
        assert linked.link.last_error == "its address has changed"
        await linked.up()
        await asker.has_settled(1)
        assert asker.replies == [NoReply(sent=False)]  # it was still in the queue
        asker.ask()
        await asker.has_settled(2)
        assert isinstance(asker.replies[1], EpochIs)
        assert linked.changes == [True, False, True]


async def test_a_link_that_dials_in_vain_is_told_where_its_peer_is() -> None:
    async with serving(StubReplica()) as server:
        nobody = server.address
    async with linking(nobody) as linked, serving(StubReplica()) as server:
        await eventually(lambda: linked.link.last_error)
        linked.link.move(server.address)
        await linked.up()
        assert linked.link.last_error is None


async def test_a_peer_that_accepts_and_never_answers_is_down() -> None:
    def mute() -> asyncio.Protocol:
        return asyncio.Protocol()

    listener = await asyncio.get_running_loop().create_server(mute, "127.0.0.1", 0)
    async with linking(ANY_PORT._replace(port=listener.sockets[0].getsockname()[1]), timeouts=IMPATIENT) as linked:
        await eventually(lambda: linked.link.last_error)
        assert "the handshake took more than 0.3 s" in str(linked.link.last_error)
        assert linked.changes == []
    listener.close()
    await listener.wait_closed()


async def test_a_peer_that_falls_silent_is_down_and_its_requests_are_uncertain() -> None:
    async with (
        serving(StubReplica(), timeouts=IMPATIENT) as server,
        Relay(server.address).running() as relay,
        asking(relay.address, timeouts=IMPATIENT) as (linked, asker),
    ):
        asker.ask(3)
        await asyncio.sleep(0)
        relay.frozen = True
        await asker.has_settled(3)
        assert asker.replies == [NoReply(sent=True)] * 3
        assert not linked.link.up
        assert "nothing was heard for 0.3 s" in str(linked.link.last_error)
        # The server's end gives up by itself too: it has received no close.
        await eventually(lambda: not server.connected)
        relay.cut()
        relay.thaw()
        await linked.up()


async def test_a_process_that_was_held_up_ends_its_links_though_bytes_have_come_meanwhile() -> None:
    """Proves: one process per name. Its peers may have given its name to another; what it reads now was sent before that."""
    async with serving(StubReplica(at_once=True)) as server, asking(server.address, timeouts=IMPATIENT) as (linked, asker):
        await linked.up()
        server.tell()
        asker.ask()
        time.sleep(2 * IMPATIENT.silence)  # noqa: ASYNC251 - holds up everything in this process
        await asker.has_settled(1)
        assert linked.changes[:2] == [True, False]
        await linked.up()


async def test_an_idle_link_stays_up_and_brings_news() -> None:
    news = [facts_of("n2")]
    async with (
        serving(StubReplica(), timeouts=IMPATIENT, facts=lambda: news[-1]) as server,
        linking(server.address, timeouts=IMPATIENT) as linked,
    ):
        await linked.up()
        assert linked.link.facts == news[0]
        news.append(facts_of("n2", incarnation=9, keys="others"))
        await eventually(lambda: linked.link.facts == news[1])
        assert server.connected == {"n1": facts_of("n1")}


async def test_the_end_of_a_link_settles_everything_once() -> None:
    replica = StubReplica()
    async with serving(replica) as server, asking(server.address) as (linked, asker):
        asker.ask(2)
        await replica.has_taken(2)
        asker.ask(2)  # these two never leave the queue
        await linked.link.close()
        assert asker.replies == [NoReply(sent=True)] * 2 + [NoReply(sent=False)] * 2
        asker.ask()
        assert asker.replies[4] == NoReply(sent=False)
        assert linked.changes == [True, False]


async def test_a_caller_that_fails_at_the_end_robs_no_other() -> None:
    slips: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: slips.append(context))

    def fail(reply: object) -> None:
        raise RuntimeError("a slip")

    async with serving(StubReplica()) as server, asking(server.address) as (linked, asker):
        linked.link.send(Outgoing(request(0)), fail)
        asker.ask()
    await asker.has_settled(1)
    assert [str(slip["exception"]) for slip in slips] == ["a slip"]


async def test_requests_that_wait_are_bounded() -> None:
    replica = StubReplica()
    async with serving(replica) as server, asking(server.address, limits=Limits(peer_in_flight=3)) as (_, asker):
        asker.ask(4)
        assert asker.settled == 1
        assert asker.got[4] == [NoReply(sent=False)]
        await replica.has_taken(3)
        replica.answer(1)
        await asker.has_settled(2)
        asker.ask()
        await replica.has_taken(4)


async def test_bytes_that_a_slow_peer_makes_its_asker_hold_are_bounded() -> None:
    """The peer has read them but does not answer, so the asker holds each until its answer arrives."""
    replica, limits = StubReplica(), Limits(peer_queue_bytes=1000, frame_bytes=600)
    async with serving(replica) as server, linking(server.address, limits=limits) as linked:
        await linked.up()
        large = msgspec.structs.replace(request(1), owner=b"o" * 300)
        replies: list[list[object]] = [[] for _ in range(4)]
        for sent, got in enumerate(replies[:2], start=1):
            linked.link.send(Outgoing(large), got.append)
            await eventually(lambda sent=sent: replica.taken == sent)  # type: ignore[misc]
        linked.link.send(Outgoing(large), replies[2].append)
        assert replies == [[], [], [NoReply(sent=False)], []]
        replica.answer()
        await eventually(lambda: replies[0])
        linked.link.send(Outgoing(large), replies[3].append)
        await replica.has_taken(3)
        assert replies[3] == []


async def test_unsent_bytes_are_bounded() -> None:
    replica, limits = StubReplica(at_once=True), Limits(peer_queue_bytes=1000, frame_bytes=600)
    async with serving(replica) as server, linking(server.address, limits=limits) as linked:
        await linked.up()
        await asyncio.sleep(0)
        replies: list[list[object]] = [[] for _ in range(4)]
        for owner_bytes, got in zip((300, 300, 300, 600), replies, strict=True):
            large = msgspec.structs.replace(request(1), owner=b"o" * owner_bytes)
            linked.link.send(Outgoing(large), got.append)
        assert replies[2:] == [[NoReply(sent=False)]] * 2
        await eventually(lambda: replies[0] and replies[1])
        assert all(isinstance(got[0], EpochIs) for got in replies[:2])
        # A single message, but larger than a frame may be.
        linked.link.send(Outgoing(msgspec.structs.replace(request(1), owner=b"o" * 600)), replies[3].append)
        assert replies[3] == [NoReply(sent=False)] * 2


async def test_a_replica_that_takes_no_more_says_so() -> None:
    replica = StubReplica()
    async with serving(replica) as server, asking(server.address) as (linked, asker):
        asker.ask(2)
        await replica.has_taken(2)
        for sent in (False, True):
            replica.held.pop(0)[1](NoReply(sent=sent))
        await asker.has_settled(2)
        assert asker.replies == [NoReply(sent=False), NoReply(sent=True)]
        assert linked.link.up


@pytest.mark.parametrize("seed", range(5))
async def test_every_request_is_settled_once_whatever_breaks(seed: int) -> None:
    """Bursts of requests, answers in random order, cuts, freezes, and closing at the end."""
    replica, rng = StubReplica(), random.Random(seed)
    async with serving(replica) as server, Relay(server.address).running() as relay, linking(relay.address) as linked:
        asker = Asker(linked.link)
        for _ in range(300):
            match rng.choice(("ask", "ask", "answer", "answer", "wait", "wait", "cut", "freeze", "up")):
                case "ask":
                    asker.ask(rng.randrange(20))
                case "answer":
                    for _ in range(rng.randrange(len(replica.held) + 1)):
                        replica.answer(rng.randrange(len(replica.held)))
                case "wait":
                    await asyncio.sleep(rng.random() * 0.005)  # to vary the interleavings, not to hit a certain one
                case "cut" if rng.random() < 0.5:
                    relay.cut()
                case "freeze":
                    relay.frozen = True
                case "up":
                    relay.thaw()
                    await linked.up()
    assert asker.sent > 500
    assert len(asker.replies) == asker.sent
    kinds = {repr(reply) for reply in asker.replies}
    assert kinds == {"<EpochIs>", "NoReply(sent=True)", "NoReply(sent=False)"}


@pytest.mark.parametrize("origin", ["dialler", "listener"])
async def test_one_changed_byte_ends_the_connection_and_is_not_listened_to(origin: str) -> None:
    replica = StubReplica(at_once=True)
    async with serving(replica) as server, Relay(server.address).running() as relay, asking(relay.address) as (linked, asker):
        asker.ask()
        await asker.has_settled(1)
        relay.change = lambda where, data: data[:-1] + bytes([data[-1] ^ 1]) if where == origin else data
        asker.ask()
        await asker.has_settled(2)
        assert asker.replies[1] == NoReply(sent=True)
        if origin == "listener":
            assert "bytes that are not authentic" in str(linked.link.last_error)
        assert replica.taken == (1 if origin == "dialler" else 2)
        assert not linked.link.up
        relay.change = lambda where, data: data
        await linked.up()


async def test_what_is_played_again_ends_the_connection() -> None:
    replica = StubReplica(at_once=True)
    async with serving(replica) as server, Relay(server.address).running() as relay, asking(relay.address) as (linked, asker):
        asker.ask()
        await asker.has_settled(1)
        relay.change = lambda where, data: data * 2 if where == "dialler" else data
        asker.ask()
        await linked.down()
        await asker.has_settled(2)
        assert replica.taken <= 2


async def test_a_link_binds_its_own_address() -> None:
    callers: list[str] = []

    class Listener(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            callers.append(transport.get_extra_info("peername")[0])

    listener = await asyncio.get_running_loop().create_server(Listener, "127.0.0.12", 0)
    address = ANY_PORT._replace(host="127.0.0.12", port=listener.sockets[0].getsockname()[1])
    for source in ("127.0.0.11", "127.0.0.13"):
        async with linking(address, source=source):
            await eventually(partial(callers.__contains__, source))
    async with linking(address, source="192.0.2.1") as linked:
        await eventually(lambda: linked.link.last_error)
        assert "cannot connect" in str(linked.link.last_error)
    listener.close()
    await listener.wait_closed()
    assert set(callers) == {"127.0.0.11", "127.0.0.13"}


def test_waits_before_dialling_grow_to_their_bound_and_are_drawn_at_random() -> None:
    timeouts = msgspec.structs.replace(TIMEOUTS, reconnect_first=0.05, reconnect_last=1.0)
    rng = random.Random(3)
    for attempt, ceiling in ((0, 0.05), (1, 0.1), (2, 0.2), (4, 0.8), (5, 1.0), (6, 1.0), (10_000, 1.0)):
        waits = [reconnect_wait(attempt, timeouts, rng) for _ in range(200)]
        assert all(0 <= wait <= ceiling for wait in waits)
        assert min(waits) < ceiling * 0.1
        assert max(waits) > ceiling * 0.9


def test_what_a_node_has_for_its_links_shows_no_secret() -> None:
    assert "PRIVATE" not in repr(local_node("n1"))
    assert "context" not in repr(local_node("n1").credentials()).lower()
