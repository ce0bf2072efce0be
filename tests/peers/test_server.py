"""What the peer port promises towards strangers, towards nodes that it refuses, and towards those that ask too much of it."""

import asyncio
import contextlib
import logging
import ssl
from pathlib import Path

import msgpack
import msgspec
import pytest

from quorumvault.config.cluster import Limits
from quorumvault.protocol.messages import Outgoing, encode
from quorumvault.server.peers import facts as saying
from quorumvault.server.peers.facts import Greeting, NodeFacts
from quorumvault.server.peers.frames import Envelope, Kind
from quorumvault.server.peers.handshake import ClusterSecret, Dialling
from tests.rigs import links
from tests.rigs.certificates import certificate

pytestmark = pytest.mark.usefixtures("run")

OTHER_SECRET = ClusterSecret(b"S" * 32)


# Strangers.


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        bytes(1000),
        b"QVPEER\x00\x02" + bytes(48),
        b"QVPEER\x00\x01" + bytes(48),
        Dialling(OTHER_SECRET, b"d" * 32).start(),
        Dialling(OTHER_SECRET, b"d" * 32).start() + bytes(1000),
    ],
    ids=["http", "tls", "zeros", "other version", "no tag", "other secret", "too much"],
)
async def test_who_lacks_the_secret_gets_not_one_byte(said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    replica = links.StubReplica()
    async with links.serving(replica) as server, links.RawDialler.connected(server.address) as stranger:
        stranger.writer.write(said)
        assert await stranger.rest() == b""
    assert replica.taken == 0
    assert "a connection from 127.0.0.1 came to nothing" in caplog.text


async def test_who_says_nothing_or_too_little_is_dropped_in_time() -> None:
    async with (
        links.serving(links.StubReplica(), timeouts=links.IMPATIENT) as server,
        links.RawDialler.connected(server.address) as silent,
        links.RawDialler.connected(server.address) as slow,
    ):
        slow.writer.write(b"QVPEER\x00\x01")
        assert await silent.rest() == b""
        assert await slow.rest() == b""


async def test_a_recorded_dialler_gets_a_nonce_with_its_tag_and_no_more() -> None:
    replica = links.StubReplica(at_once=True)
    async with links.serving(replica) as server, links.Relay(server.address).running() as relay:
        async with links.asking(relay.address) as (_, asker):
            asker.ask()
            await asker.has_settled(1)
        recorded = bytes(relay.seen["dialler"])
        for length in (56, 56 + 16, len(recorded)):
            async with links.RawDialler.connected(server.address) as replayed:
                replayed.writer.write(recorded[:56])
                async with asyncio.timeout(links.DEADLINE):
                    assert len(await replayed.reader.readexactly(48)) == 48
                replayed.writer.write(recorded[56:length])
                if length > 56:
                    assert await replayed.rest() == b""
        assert replica.taken == 1


async def test_one_stranger_too_many_drops_the_oldest_and_no_node() -> None:
    async with (
        links.serving(links.StubReplica(at_once=True), limits=Limits(peer_strangers=3)) as server,
        links.linking(server.address) as linked,
    ):
        await linked.up()
        async with contextlib.AsyncExitStack() as stack:
            strangers = [await stack.enter_async_context(links.RawDialler.connected(server.address)) for _ in range(5)]
            for dropped in strangers[:2]:
                assert await dropped.rest() == b""
            async with links.linking(server.address, node="n3") as other:
                await other.up()
                assert set(server.connected) == {"n1", "n3"}
                assert await strangers[2].rest() == b""
        asker = links.Asker(linked.link)
        asker.ask()
        await asker.has_settled(1)
        assert linked.changes == [True]


async def test_a_stranger_that_comes_again_and_again_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with links.serving(links.StubReplica()) as server:
        for _ in range(5):
            async with links.RawDialler.connected(server.address) as stranger:
                stranger.writer.write(b"GET / HTTP/1.1\r\n\r\n")
                assert await stranger.rest() == b""
    assert [record.getMessage() for record in caplog.records if "came to nothing" in record.getMessage()] == [
        "a connection from 127.0.0.1 came to nothing: what connected is no node of a vault"
    ]


# Nodes that are refused.


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (links.facts_of("n1", cluster_id="other"), "n1 of cluster 'other'"),
        (links.facts_of("n1", protocol=3), "n1 version 3"),
        (links.facts_of("n1", secrets={"s1": "f-other"}), "different master secrets under the id 's1'"),
        (links.facts_of("n1", secrets={"s2": "f-other"}), "only one of n2 and n1 has the master secret 's1'"),
        (links.facts_of("n1", disk=b"n2" * 8), "same disk identity"),
        (links.facts_of("n2", disk=b"n9" * 8), "but this is n2, which speaks with n1 or n3"),
    ],
    ids=["cluster", "version", "secret", "secret id", "disk", "name"],
)
async def test_a_node_that_is_refused_hears_why_and_both_sides_log_it(
    mine: NodeFacts, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with links.serving(links.StubReplica()) as server, links.linking(server.address, facts=lambda: mine) as linked:
        await links.eventually(lambda: linked.link.last_error)
        assert "refused by the other side" in str(linked.link.last_error)
        assert words in str(linked.link.last_error)
        assert linked.changes == []
        assert server.connected == {}
    messages = [record.getMessage() for record in caplog.records]
    assert len([message for message in messages if words in message and message.startswith("n2 is down")]) == 1
    assert len([message for message in messages if words in message and message.startswith("a connection from")]) == 1
    assert "f-other" not in caplog.text


async def test_a_link_that_reaches_another_node_than_it_means_to_displaces_nobody() -> None:
    """The address of n2 leads to n3: what n1 has with n3 under the right address goes on."""
    async with (
        links.serving(links.StubReplica(), facts=lambda: links.facts_of("n3")) as server,
        links.RawDialler.connected(server.address) as true,
    ):
        await true.shake_hands()
        true.send(Envelope(Kind.GREETING, 0, saying.encode(Greeting("n3", links.facts_of("n1")))))
        assert [envelope.kind for envelope in await true.receive()] == [Kind.GREETING]
        async with links.linking(server.address) as astray:
            await links.eventually(lambda: astray.link.last_error)
            assert "n1 means to speak with n2, but this is n3" in str(astray.link.last_error)
        true.send(Envelope(Kind.PING, 0, saying.encode(links.facts_of("n1"))))
        assert [envelope.kind for envelope in await true.receive()] == [Kind.PONG]


@pytest.mark.parametrize(("dialler", "listener"), [(OTHER_SECRET, links.SECRET), (links.SECRET, OTHER_SECRET)])
async def test_another_cluster_secret_is_refused_without_a_word(
    dialler: ClusterSecret, listener: ClusterSecret, caplog: pytest.LogCaptureFixture
) -> None:
    async with links.serving(links.StubReplica(), secret=listener) as server, links.Relay(server.address).running() as relay:
        async with links.linking(relay.address, secret=dialler) as linked:
            await links.eventually(lambda: linked.link.last_error)
            assert "the same cluster secret" in str(linked.link.last_error)
        assert relay.seen["listener"] == b""
    assert "did not prove that it holds the cluster secret" in caplog.text


# Nodes.


async def test_a_newer_connection_of_a_node_replaces_the_older(caplog: pytest.LogCaptureFixture) -> None:
    replica = links.StubReplica()
    async with links.serving(replica) as server, links.RawDialler.connected(server.address) as older:
        await older.greet()
        older.send(Envelope(Kind.REQUEST, 1, encode(links.request(1))))
        await replica.has_taken(1)
        async with links.linking(server.address) as linked:
            await linked.up()
            assert await older.rest() == b""
            replica.answer()  # to nobody any more
            asker = links.Asker(linked.link)
            asker.ask()
            await replica.has_taken(2)
            replica.answer()
            await asker.has_settled(1)
            assert set(server.connected) == {"n1"}
    assert "replaced by a newer connection" in caplog.text


GARBAGE = {
    "no message": Envelope(Kind.REQUEST, 1, b"\xc1"),
    "no text": Envelope(Kind.REQUEST, 1, encode(links.request(1)).replace(b"boot", b"\xff\xff\xff\xff")[:-3]),
    "a reply": Envelope(Kind.REPLY, 1, encode(links.reply_to(links.request(1)))),
    "a second greeting": Envelope(Kind.GREETING, 0, saying.encode(Greeting("n2", links.facts_of("n1")))),
    "no facts": Envelope(Kind.PING, 0, b"\x90"),
    "another node's facts": Envelope(Kind.PING, 0, saying.encode(links.facts_of("n3"))),
    "unknown": Envelope(99, 0, b""),
}


@pytest.mark.parametrize("what", GARBAGE)
async def test_what_no_node_would_say_ends_the_connection(what: str, caplog: pytest.LogCaptureFixture) -> None:
    replica = links.StubReplica()
    async with links.serving(replica) as server, links.RawDialler.connected(server.address) as dialler:
        await dialler.greet()
        dialler.send(GARBAGE[what], Envelope(Kind.REQUEST, 2, encode(links.request(2))))
        assert await dialler.receive() == []
        assert replica.taken == 0
        assert server.connected == {}
    assert "n1, from 127.0.0.1, is no longer connected: a " in caplog.text


async def test_nothing_counts_before_the_greeting() -> None:
    replica = links.StubReplica()
    async with links.serving(replica) as server, links.RawDialler.connected(server.address) as dialler:
        await dialler.shake_hands()
        dialler.send(Envelope(Kind.REQUEST, 1, encode(links.request(1))))
        assert await dialler.receive() == []
        assert replica.taken == 0


async def test_requests_under_way_are_bounded() -> None:
    replica = links.StubReplica()
    async with (
        links.serving(replica, limits=Limits(peer_in_flight=4)) as server,
        links.RawDialler.connected(server.address) as dialler,
    ):
        await dialler.greet()
        # The pong tells that everything was read that came before the ping.
        dialler.send(
            *(Envelope(Kind.REQUEST, n, encode(links.request(n))) for n in range(10)),
            Envelope(Kind.PING, 0, saying.encode(links.facts_of("n1"))),
        )
        assert [envelope.kind for envelope in await dialler.receive()] == [Kind.PONG]
        assert replica.taken == 4
        replica.answer(2)
        assert [envelope.correlation for envelope in await dialler.receive()] == [2]
        assert replica.taken == 5
        received = 1
        while replica.held:
            replica.answer()
            received += len(await dialler.receive())
        assert received == replica.taken == 10


async def test_who_does_not_read_its_replies_is_not_served_on() -> None:
    count, reply_bytes = 200, 1_000_000
    replica = links.StubReplica(at_once=True, padding=reply_bytes)
    limits = Limits(peer_queue_bytes=4_000_000)
    async with links.serving(replica, limits=limits) as server, links.RawDialler.connected(server.address) as dialler:
        await dialler.greet()
        dialler.writer.transport.pause_reading()  # type: ignore[attr-defined]
        dialler.send(*(Envelope(Kind.REQUEST, n, encode(links.request(n))) for n in range(count)))
        await links.eventually(lambda: replica.taken)
        held_back = replica.taken
        # What the kernel takes of it, and the stream's own buffer, is little against the 200 MB that were asked for.
        assert held_back < count / 2
        dialler.writer.transport.resume_reading()  # type: ignore[attr-defined]
        correlations: list[int] = []
        while received := await dialler.receive():
            correlations += [envelope.correlation for envelope in received]
            if len(correlations) >= count:
                break
        assert correlations == list(range(count))


async def test_who_never_reads_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    replica = links.StubReplica(at_once=True, padding=1_000_000)
    limits = Limits(peer_queue_bytes=4_000_000)
    async with (
        links.serving(replica, limits=limits, timeouts=links.IMPATIENT) as server,
        links.RawDialler.connected(server.address) as dialler,
    ):
        await dialler.greet()
        dialler.writer.transport.pause_reading()  # type: ignore[attr-defined]
        dialler.send(*(Envelope(Kind.REQUEST, n, encode(links.request(n))) for n in range(200)))
        await links.eventually(lambda: replica.taken and not server.connected)
        assert replica.taken < 100
    assert "nothing was heard for 0.3 s" in caplog.text


async def test_a_node_that_stops_still_sends_the_replies_it_gave() -> None:
    replica = links.StubReplica(padding=200_000)
    async with links.serving(replica) as server, links.RawDialler.connected(server.address) as dialler:
        await dialler.greet()
        dialler.send(*(Envelope(Kind.REQUEST, n, encode(links.request(n))) for n in range(20)))
        await replica.has_taken(20)
        while replica.held:
            replica.answer()
        closing = asyncio.create_task(server.close())
        correlations: list[int] = []
        while received := await dialler.receive():
            correlations += [envelope.correlation for envelope in received]
        assert correlations == list(range(20))
        await closing


async def test_bodies_are_plain_message_pack() -> None:
    """Requests and replies packed and read by another implementation, end to end."""
    async with links.serving(links.StubReplica(at_once=True)) as server, links.RawDialler.connected(server.address) as dialler:
        await dialler.greet()
        asked = [4, [b"D" * 16, b"boot", 77], [1, bytes(16)], b"o" * 16]
        dialler.send(Envelope(Kind.REQUEST, 5, msgpack.packb(asked)))
        (reply,) = await dialler.receive()
        assert msgpack.unpackb(reply.body) == [36, [b"D" * 16, b"boot", 77], [1, bytes(16)], b"D" * 16, 77, ""]


async def test_no_log_line_has_a_secret_or_what_messages_carry(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with links.serving(links.StubReplica(at_once=True), secret=ClusterSecret(b"topsecret" * 3 + b"12345")) as server:
        async with links.linking(server.address, secret=ClusterSecret(b"topsecret" * 3 + b"12345")) as linked:
            await linked.up()
            replies: list[object] = []
            asked = msgspec.structs.replace(links.request(1), owner=b"patient data 007")
            linked.link.send(Outgoing(asked), replies.append)
            await links.eventually(lambda: replies)
        async with links.linking(server.address) as linked:
            await links.eventually(lambda: linked.link.last_error)
    assert "n2 is up" in caplog.text
    for private in ("topsecret", b"topsecret".hex(), "patient", b"patient".hex(), "fingerprint"):
        assert private not in caplog.text


# TLS underneath.


async def test_tls_goes_underneath(tmp_path: Path) -> None:
    pem = certificate(tmp_path / "node.pem")
    listener_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    listener_tls.load_cert_chain(pem)
    dialler_tls = ssl.create_default_context(cafile=str(pem))
    replica = links.StubReplica(at_once=True, padding=3_000_000)
    async with links.serving(replica, tls=listener_tls) as server, links.Relay(server.address).running() as relay:
        async with links.asking(relay.address, tls=dialler_tls) as (linked, asker):
            asker.ask(3)
            await asker.has_settled(3)
            assert linked.changes == [True]
        assert b"QVPEER" not in relay.seen["dialler"]
        async with links.linking(server.address) as plain:
            await links.eventually(lambda: plain.link.last_error)
            assert plain.changes == []
