"""A node's knowledge of revoked keys, over three replicas in one process and peers that can fail."""

import asyncio
from collections.abc import Coroutine
from itertools import permutations

import pytest

from quorumvault.errors import NoQuorum, Refused
from quorumvault.protocol import revocations
from quorumvault.protocol.messages import ReadRevoked, RevokeKeys
from quorumvault.protocol.revocations import KNOWN_FOR
from quorumvault.server.coordinator import revocations as coordinator_revocations
from quorumvault.server.coordinator.revocations import Revocations
from quorumvault.server.storage import layout
from tests.rigs.trio import NODES, Trio


class Keys:
    """Implements KeysInForce."""

    def __init__(self, *called_revoked: str) -> None:
        self.called_revoked = frozenset(called_revoked)
        self.listed = frozenset({*called_revoked, "leaked"})
        self.told: list[frozenset[str]] = []
        self.heard = asyncio.Event()

    def revoke(self, ids: frozenset[str]) -> None:
        self.told.append(ids)
        self.heard.set()


class Node:
    """A node's revocations, with a clock that stands still."""

    def __init__(self, three: Trio, name: str, *called_revoked: str) -> None:
        self.now = 100.0
        self.keys = Keys(*called_revoked)
        self.revocations = Revocations(three.coordinators[name], lambda: self.now, self.keys)


async def hanging(three: Trio, asking: Coroutine[object, object, None]) -> asyncio.Future[None]:
    """Begins to ask both peers, which let the questions hang. Returns once the second one has its question."""
    sent = asyncio.Event()
    three.peers["n3"].drops = lambda request: bool(sent.set())
    three.peers["n2"].hangs = three.peers["n3"].hangs = True
    asked = asyncio.ensure_future(asking)
    await sent.wait()
    return asked


def disks_with(three: Trio, key_id: str) -> list[str]:
    return [node for node, store in three.stores.items() if store.get([layout.revoked_key(key_id)]) != [None]]


@pytest.mark.parametrize("away", NODES)
async def test_what_one_node_revokes_every_node_refuses_though_one_is_away(three: Trio, away: str) -> None:
    """Proves: a revoked key stays revoked."""
    by, other = (node for node in NODES if node != away)
    three.peers[away].up = False
    await Node(three, by).revocations.revoke("abc")
    assert disks_with(three, "abc") == sorted([by, other])
    node = Node(three, other)
    await node.revocations.once()
    assert node.keys.told == [frozenset({"abc"})]
    await node.revocations.once()
    assert len(node.keys.told) == 1
    three.peers[away].up, three.peers[by].up = True, False
    returned = Node(three, away)
    assert not returned.revocations.known
    await returned.revocations.once()
    assert returned.revocations.known
    assert returned.revocations.ids == {"abc"}


@pytest.mark.parametrize(("alone", "by"), list(permutations(NODES, 2)))
async def test_what_one_disk_has_alone_is_on_two_before_it_counts(three: Trio, alone: str, by: str) -> None:
    for node in NODES:
        three.peers[node].drops = lambda request, node=node: isinstance(request, RevokeKeys) and node != alone  # type: ignore[misc]
    with pytest.raises(NoQuorum) as unknown:
        await Node(three, alone).revocations.revoke("abc")
    assert unknown.value.outcome == "unknown"
    await three.settled()
    reader = Node(three, by)
    (third,) = set(NODES) - {alone, by}
    three.peers[third].up = False
    await reader.revocations.once()
    assert (reader.revocations.ids, reader.revocations.known) == (frozenset(), False)
    three.peers[by].drops = lambda request: False
    await reader.revocations.once()
    assert (reader.revocations.ids, reader.revocations.known) == (frozenset({"abc"}), True)
    assert disks_with(three, "abc") == sorted([alone, by])


async def test_a_node_knows_nothing_that_counts_until_it_asked_two_and_a_while_after(three: Trio) -> None:
    """Proves: no key without knowledge."""
    node = Node(three, "n1")
    three.peers["n2"].up = three.peers["n3"].up = False
    await node.revocations.once()
    assert not node.revocations.known
    three.peers["n2"].up = True
    await node.revocations.once()
    assert node.revocations.known
    node.now += KNOWN_FOR
    assert not node.revocations.known


async def test_a_request_waits_for_a_question_of_its_own_whatever_earlier_ones_hang_on(three: Trio) -> None:
    node = Node(three, "n1")
    three.peers["n2"].up = three.peers["n3"].up = False
    await node.revocations.learn()
    assert not node.revocations.known
    three.peers["n2"].up = three.peers["n2"].hangs = True
    for _ in range(10):
        node.revocations.ask()
        await asyncio.sleep(0)
    under_way = len(three.peers["n2"].unanswered)
    assert 0 < under_way < 10
    three.peers["n2"].hangs = False
    await asyncio.gather(node.revocations.learn(), node.revocations.learn())
    assert node.revocations.known
    assert len(three.peers["n2"].unanswered) == under_way
    await node.revocations.stop()


async def test_a_request_goes_on_when_any_question_is_answered(three: Trio) -> None:
    node = Node(three, "n1")
    waiting = await hanging(three, node.revocations.learn())
    three.peers["n2"].hangs = False
    await node.revocations.once()
    await waiting
    assert node.revocations.known
    await node.revocations.stop()


async def test_an_answer_counts_from_its_question_on(three: Trio) -> None:
    node = Node(three, "n1")
    asking = await hanging(three, node.revocations.once())
    node.now += KNOWN_FOR
    for peer in ("n2", "n3"):
        for request, on_reply in three.peers[peer].unanswered:
            three.peers[peer]._commit.submit(request, on_reply)
    await asking
    assert not node.revocations.known


async def test_what_the_key_file_calls_revoked_is_made_a_fact(three: Trio) -> None:
    node = Node(three, "n1", "abc", "def")
    await node.revocations.once()
    await three.settled()
    assert disks_with(three, "abc") == disks_with(three, "def") == list(NODES)
    assert node.keys.told == [frozenset({"abc", "def"})]


async def test_made_up_ids_neither_end_revocations_nor_go_unnoticed(three: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "MOST_UNLISTED", 2)
    monkeypatch.setattr(revocations, "MOST_REVOKED", 4)
    monkeypatch.setattr(coordinator_revocations, "_MANY", 2)
    node = Node(three, "n1", "abc", "def")
    await node.revocations.revoke("madeup")
    assert node.revocations.problem is None
    await node.revocations.revoke("another")
    assert str(node.revocations.problem).startswith("2 API keys are revoked")
    with pytest.raises(Refused):
        await node.revocations.revoke("third")
    await node.revocations.revoke("leaked")
    await node.revocations.once()
    assert node.revocations.ids == {"madeup", "another", "leaked", "abc"}
    await node.revocations.once()  # there is no room for the other key, which the log reports
    assert node.revocations.known
    for again in ("leaked", "madeup"):
        await node.revocations.revoke(again)


async def test_the_usual_answer_is_that_nothing_is_new(three: Trio) -> None:
    node = Node(three, "n1")
    await node.revocations.revoke("abc")
    await three.settled()
    three.peers["n2"].asked.clear()
    await node.revocations.once()
    await three.settled()
    (asked,) = [request for request in three.peers["n2"].asked if isinstance(request, ReadRevoked | RevokeKeys)]
    assert isinstance(asked, ReadRevoked)
    (reply,) = three.peers["n2"]._commit.replica.handle([asked])
    assert reply.ids is None


async def test_it_asks_by_itself_and_ceases(three: Trio) -> None:
    node = Node(three, "n1")
    await Node(three, "n2").revocations.revoke("abc")
    node.revocations.start()
    await node.keys.heard.wait()
    for _ in range(20):  # more than may be under way at once
        node.revocations.ask()
    await node.revocations.stop()
    three.peers["n1"].asked.clear()
    await asyncio.sleep(0)
    assert three.peers["n1"].asked == []
