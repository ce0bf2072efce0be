"""What the peer port promises towards strangers, nodes that it refuses, and nodes that ask too much of it."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

import msgpack
import msgspec
import pytest

from quorumvault.config.limits import Limits
from quorumvault.protocol.messages import EpochIs, Outgoing, encode
from quorumvault.protocol.peer import NoReply
from quorumvault.server.peers import facts as saying
from quorumvault.server.peers.facts import Greeting, NodeFacts
from quorumvault.server.peers.frames import Envelope, Kind
from quorumvault.server.tls import TlsSession
from tests.rigs import links
from tests.rigs.certificates import DAY, credentials, node_pem, serial

pytestmark = pytest.mark.usefixtures("run")


# Strangers.


def hello() -> bytes:
    """The first bytes of a node's handshake."""
    tls = TlsSession(credentials(node_pem("n1")).dialling, server_side=False)
    tls.start()
    return tls.outgoing()


NO_TLS = "what it sends is not TLS as it is spoken here"
PLAIN = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "half a hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),
    "zeros": bytes(1000),
    "version 0.1": b"QVPEER\x00\x01" + bytes(48),
}


@pytest.mark.parametrize("said", PLAIN.values(), ids=PLAIN)
async def test_what_is_no_tls_gets_an_alert_at_most(said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    replica, refused = links.StubReplica(), list[str]()
    async with (
        links.serving(replica, on_refused=lambda node, why: refused.append(why)) as server,
        links.RawDialler.connected(server.address) as stranger,
    ):
        stranger.writer.write(said)
        answered = await stranger.rest()
    assert answered == b"" or (answered[0], len(answered)) == (21, 7)
    assert replica.taken == 0
    assert len(refused) == 1
    assert f"a connection from 127.0.0.1 came to nothing: {NO_TLS}" in caplog.text


async def test_a_stranger_that_announces_a_large_hello_is_dropped_at_its_head(caplog: pytest.LogCaptureFixture) -> None:
    async with links.serving(links.StubReplica()) as server, links.RawDialler.connected(server.address) as stranger:
        stranger.writer.write(b"\x16\x03\x01\x40\x00\x01" + (120_000).to_bytes(3))
        assert await stranger.rest() == b""
    assert "it announces a first message of more than 16384 bytes" in caplog.text


async def test_who_says_nothing_or_too_little_is_dropped_in_time() -> None:
    async with (
        links.serving(links.StubReplica(), timeouts=links.IMPATIENT) as server,
        links.RawDialler.connected(server.address) as silent,
        links.RawDialler.connected(server.address) as slow,
    ):
        slow.writer.write(hello()[:40])
        assert await silent.rest() == b""
        assert await slow.rest() == b""


async def test_a_recorded_dialler_is_let_in_nowhere() -> None:
    replica = links.StubReplica(at_once=True)
    async with links.serving(replica) as server, links.Relay(server.address).running() as relay:
        async with links.asking(relay.address) as (_, asker):
            asker.ask()
            await asker.has_settled(1)
        async with links.RawDialler.connected(server.address) as replayed:
            replayed.writer.write(bytes(relay.seen["dialler"]))
            await replayed.rest()
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
        f"a connection from 127.0.0.1 came to nothing: {NO_TLS} (http_request): is it a node of this version?"
    ]


# Nodes that are refused.


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (links.facts_of("n1", protocol=3), "n1 version 3"),
        (links.facts_of("n1", secrets={"s1": "f-other"}), "different master secrets under the id 's1'"),
        (links.facts_of("n1", secrets={"s2": "f-other"}), "only one of n2 and n1 has the master secret 's1'"),
        (links.facts_of("n1", disk=b"n2" * 8), "same disk identity"),
        (links.facts_of("n3"), "what greets as n3 has the certificate of n1"),
        (links.facts_of("n2", disk=b"n9" * 8), "but this is n2, which speaks with n1 or n3"),
    ],
    ids=["version", "secret", "secret id", "disk", "other name", "own name"],
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
    """The address of n2 leads to n3. The existing connection between n1 and n3, under the right address, goes on."""
    async with (
        links.serving(links.StubReplica(), facts=lambda: links.facts_of("n3"), pem=node_pem("n3")) as server,
        links.RawDialler.connected(server.address) as true,
    ):
        await true.shake_hands()
        true.send(Envelope(Kind.GREETING, 0, saying.encode(Greeting("n3", links.facts_of("n1")))))
        assert [envelope.kind for envelope in await true.receive()] == [Kind.GREETING]
        async with links.linking(server.address) as astray:
            await links.eventually(lambda: astray.link.last_error)
            assert "its certificate is that of 'n3', and n1 speaks here with n2" in str(astray.link.last_error)
        true.send(Envelope(Kind.PING, 0, saying.encode(links.facts_of("n1"))))
        assert [envelope.kind for envelope in await true.receive()] == [Kind.PONG]


# Certificates that are refused. The dialler or the listener shows a bad one; the other side has a good one.


class Shown(NamedTuple):
    """``pem`` makes a certificate of "n1", or of "n2" for the listener. ``refused``: what the side that refuses it logs."""

    pem: Callable[[str], bytes]
    refused: str
    heard: str


#: Revoked certificates begin this long ago, which tells them from the others.
REVOKED = timedelta(hours=7)
OWN = "the other side refuses the certificate of this node: "
BAD = {
    "another CA": Shown(lambda node: node_pem(node, ca="other"), "is of a CA that is not among those trusted here", OWN),
    "another cluster": Shown(lambda node: node_pem(node, cluster="b"), "is of cluster 'b', and this node of cluster 'c'", "'b'"),
    "another node": Shown(lambda node: node_pem("n4"), "its certificate is that of 'n4', and n", "that of 'n4'"),
    "expired": Shown(lambda node: node_pem(node, begins=-9 * DAY, days=3), "its certificate has expired", f"{OWN}it has expired"),
    "not yet": Shown(lambda node: node_pem(node, begins=DAY), "its certificate is not valid yet", OWN),
    "revoked": Shown(lambda node: node_pem(node, begins=-REVOKED), "its certificate is revoked", f"{OWN}it is revoked"),
}


@pytest.mark.parametrize("by", ["dialler", "listener"])
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_a_bad_certificate_is_refused_on_either_side_with_one_line(
    bad: Shown, by: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Proves: a node is whom its certificate names."""
    refused: dict[str, list[str]] = {"dialler": [], "listener": []}
    replica = links.StubReplica()

    def options(side: str, node: str) -> dict[str, Any]:
        own = bad.pem(node) if side == by else node_pem(node)
        revoked = tuple(serial(node_pem(name, begins=-REVOKED)) for name in ("n1", "n2")) if side != by else ()
        made = credentials(own, revoked=revoked)
        return {"credentials": lambda: made, "on_refused": lambda node, why: refused[side].append(why)}

    async with (
        links.serving(replica, **options("listener", "n2")) as server,
        links.linking(server.address, **options("dialler", "n1")) as linked,
    ):
        await links.eventually(lambda: refused["dialler"] and refused["listener"])
        assert linked.changes == []
        assert server.connected == {}
    other = "listener" if by == "dialler" else "dialler"
    assert bad.refused in refused[other][0]
    assert bad.heard in refused[by][0]
    assert [len(lines) for lines in refused.values()] == [1, 1]
    assert replica.taken == 0
    assert "127.0.0.1" in refused[other][0]


async def test_who_shows_no_certificate_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
    async with links.serving(links.StubReplica()) as server:
        reader, writer = await asyncio.open_connection(*server.address, ssl=nobody)
        with contextlib.suppress(OSError):
            assert await reader.read() == b""
        writer.transport.abort()
        await links.eventually(lambda: "it showed no certificate" in caplog.text)


async def test_an_older_tls_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with links.serving(links.StubReplica()) as server:
        with pytest.raises(OSError):
            await asyncio.open_connection(*server.address, ssl=old)
        await links.eventually(lambda: "no version of TLS in common" in caplog.text)


async def test_no_session_is_resumed() -> None:
    """A resumed session would skip the check of the certificate, which may have been revoked."""
    sides = credentials(node_pem("n1")).dialling, credentials(node_pem("n2")).listening
    dialling, listening = TlsSession(sides[0], server_side=False), TlsSession(sides[1], server_side=True)
    dialling.start()
    while not (dialling.established and listening.established):
        listening.feed(dialling.outgoing())
        dialling.feed(listening.outgoing())
    dialling.feed(listening.seal(b"all that comes"))
    assert dialling.read_all() == b"all that comes"
    session = dialling._tls.session
    assert session is None or not session.has_ticket


async def test_a_certificate_that_is_revoked_ends_the_connections_that_have_it() -> None:
    """Proves: a node is whom its certificate names."""
    own = {"n1": [credentials(node_pem("n1"))], "n2": [credentials(node_pem("n2"))]}
    replica = links.StubReplica(at_once=True)
    async with (
        links.serving(replica, credentials=lambda: own["n2"][-1]) as server,
        links.linking(server.address, credentials=lambda: own["n1"][-1]) as linked,
        links.linking(server.address, node="n3") as other,
    ):
        await linked.up()
        await other.up()
        own["n2"].append(credentials(node_pem("n2"), revoked=(serial(node_pem("n1")),)))
        server.forget_untrusted()
        await linked.down()
        assert set(server.connected) == {"n3"}
        await links.eventually(lambda: linked.link.last_error and OWN in linked.link.last_error)
        assert other.changes == [True]


async def test_a_link_forgets_a_peer_that_is_revoked() -> None:
    own = [credentials(node_pem("n1"))]
    async with links.serving(links.StubReplica()) as server, links.linking(server.address, credentials=lambda: own[-1]) as linked:
        await linked.up()
        linked.link.forget_revoked()
        assert linked.link.up
        own.append(credentials(node_pem("n1"), revoked=(serial(node_pem("n2")),)))
        linked.link.forget_revoked()
        assert linked.link.last_error == "the certificate of n2 is revoked"
        await links.eventually(lambda: linked.link.last_error != "the certificate of n2 is revoked")
        assert "its certificate is revoked" in str(linked.link.last_error)
        assert linked.changes == [True, False]


@pytest.mark.parametrize("answered", [True, False])
async def test_a_link_that_is_renewed_first_gets_the_answers_that_are_under_way(answered: bool) -> None:
    """Or waits for them for at most the duration of a round."""
    own, replica = [credentials(node_pem("n1"), "c", "other")], links.StubReplica()
    timeouts = msgspec.structs.replace(links.TIMEOUTS, round=30 if answered else 0.05)
    async with (
        links.serving(replica) as server,
        links.asking(server.address, credentials=lambda: own[-1], timeouts=timeouts) as (linked, asker),
    ):
        asker.ask(2)
        await replica.has_taken(2)
        own.append(credentials(node_pem("n1")))
        assert linked.link.renew()
        asker.ask()
        assert asker.got[3] == [NoReply(sent=False)]
        for _ in range(2 if answered else 0):
            assert linked.link.up
            replica.answer()
            await asker.has_settled(3 - len(replica.held))
        await links.eventually(lambda: linked.changes == [True, False, True])
        assert [isinstance(reply, EpochIs) for reply in asker.replies] == [answered, answered, False]
        assert answered or asker.got[1] == [NoReply(sent=True)]
        assert not linked.link.renew()
        asker.ask()
        await replica.has_taken(3)


@pytest.mark.parametrize("side", ["dialler", "listener"])
@pytest.mark.parametrize(("left", "kept"), [(("c", "other", "third"), True), (("c",), False)])
async def test_a_ca_that_is_trusted_no_more_ends_the_connections_made_under_it(
    side: str, left: tuple[str, ...], kept: bool
) -> None:
    """Proves: a node is whom its certificate names."""
    own = {"listener": credentials(node_pem("n2"), "c", "other"), "dialler": credentials(node_pem("n1"), "c", "other")}
    async with (
        links.serving(links.StubReplica(), credentials=lambda: own["listener"]) as server,
        links.linking(server.address, credentials=lambda: own["dialler"]) as linked,
    ):
        await linked.up()
        own[side] = credentials(node_pem("n2" if side == "listener" else "n1"), *left)
        server.forget_untrusted()
        linked.link.renew()
        assert bool(server.connected if side == "listener" else linked.link.up) == kept
        # Connections that were closed are made anew.
        await links.eventually(lambda: linked.link.up and server.connected and len(linked.changes) == (1 if kept else 3))


@pytest.mark.parametrize("by", ["dialler", "listener"])
async def test_a_handshake_that_straddles_a_reload_comes_to_nothing(by: str) -> None:
    """The handshake was checked against the old list of revoked certificates. Proves: a node is whom its certificate names."""
    refused = list[str]()
    old = {"dialler": credentials(node_pem("n1")), "listener": credentials(node_pem("n2"))}
    new = {
        "dialler": credentials(node_pem("n1"), revoked=(serial(node_pem("n2")),)),
        "listener": credentials(node_pem("n2"), revoked=(serial(node_pem("n1")),)),
    }
    in_force = dict(old)
    async with (
        links.serving(
            links.StubReplica(), credentials=lambda: in_force["listener"], on_refused=lambda node, why: refused.append(why)
        ) as server,
        links.Relay(server.address).running() as relay,
    ):
        relay.frozen = True
        async with links.linking(relay.address, credentials=lambda: in_force["dialler"]) as linked:
            await links.eventually(lambda: server._strangers)
            in_force[by] = new[by]
            server.forget_untrusted()
            linked.link.forget_revoked()
            relay.thaw()
            straddled = "read again during the handshake"
            await links.eventually(lambda: linked.link.last_error or server.connected)
            if by == "dialler":
                assert straddled in str(linked.link.last_error)
            else:
                await links.eventually(lambda: refused)
                assert straddled in refused[0]
            await links.eventually(lambda: "revoked" in str(linked.link.last_error))
            assert (server.connected, linked.changes) == ({}, [])


async def test_new_certificates_are_for_new_connections_and_old_ones_go_on() -> None:
    own = [credentials(node_pem("n2"))]
    replica = links.StubReplica(at_once=True)
    async with links.serving(replica, credentials=lambda: own[-1]) as server, links.asking(server.address) as (linked, asker):
        own.append(credentials(node_pem("n2", days=31)))
        server.forget_untrusted()
        asker.ask()
        await asker.has_settled(1)
        assert linked.changes == [True]
        async with links.linking(server.address, node="n3") as other:
            await other.up()
            connection = other.link._open
            assert connection is not None
            assert connection._serial == serial(node_pem("n2", days=31))


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
            replica.answer()  # nobody receives this
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
        # The pong shows that everything sent before the ping has been read.
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
        # The kernel's buffers and the stream's own hold little, compared with the 200 MB that were requested.
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
    """Another MessagePack implementation packs the requests and reads the replies, end to end."""
    async with links.serving(links.StubReplica(at_once=True)) as server, links.RawDialler.connected(server.address) as dialler:
        await dialler.greet()
        asked = [4, [b"D" * 16, b"boot", 77], [1, bytes(16)], b"o" * 16]
        dialler.send(Envelope(Kind.REQUEST, 5, msgpack.packb(asked)))
        (reply,) = await dialler.receive()
        assert msgpack.unpackb(reply.body) == [36, [b"D" * 16, b"boot", 77], [1, bytes(16)], b"D" * 16, 77, ""]


async def test_no_log_line_has_a_key_or_what_messages_carry(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with links.serving(links.StubReplica(at_once=True)) as server:
        async with links.linking(server.address) as linked:
            await linked.up()
            replies: list[object] = []
            asked = msgspec.structs.replace(links.request(1), owner=b"patient data 007")
            linked.link.send(Outgoing(asked), replies.append)
            await links.eventually(lambda: replies)
        async with links.linking(server.address, pem=node_pem("n1", ca="other")) as linked:
            await links.eventually(lambda: linked.link.last_error)
    assert "n2 is up" in caplog.text
    for private in ("PRIVATE", "patient", b"patient".hex(), "fingerprint"):
        assert private not in caplog.text


async def test_nothing_but_tls_is_on_the_wire() -> None:
    replica = links.StubReplica(at_once=True, padding=3_000_000)
    async with links.serving(replica) as server, links.Relay(server.address).running() as relay:
        async with links.asking(relay.address) as (linked, asker):
            asked = msgspec.structs.replace(links.request(1), owner=b"patient data 007" * 1000)
            replies: list[object] = []
            linked.link.send(Outgoing(asked), replies.append)
            asker.ask(3)
            await asker.has_settled(3)
            await links.eventually(lambda: replies)
            assert linked.changes == [True]
        for origin in ("dialler", "listener"):
            for private in (b"patient", b"sssssss", b"fingerprint", links.DISK, b"n1n1n1"):
                assert private not in relay.seen[origin]
