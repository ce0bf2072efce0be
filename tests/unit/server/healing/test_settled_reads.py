"""Settled records: after a comparison or the notice of a round, one node answers alone, and does not write a repeat again."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from quorumvault.errors import NoQuorum
from quorumvault.model import NODE_NAMES
from quorumvault.protocol.anti_entropy import Compared
from quorumvault.protocol.messages import AnyRequest, GetSettled, ProposeView, Put, RaiseEpoch
from quorumvault.protocol.views import View
from quorumvault.server.coordinator.fence_checks import FenceChecks
from quorumvault.server.coordinator.hedging import Hedging
from quorumvault.server.coordinator.settle_notices import GATHERED, SettleNotices
from quorumvault.server.coordinator.vault import Missing
from quorumvault.server.healing.requests import on_storage_thread
from quorumvault.server.storage import layout
from quorumvault.server.storage.memory import MemoryStore
from tests.rigs.faulty_store import FaultyStore
from tests.rigs.healing import CLINIC, REGISTRY, Cluster, Node, in_cluster, values
from tests.rigs.made import flip
from tests.rigs.trio import KEYRING, tokens_of

# Each of these tests counts 65,536 buckets on three nodes.
pytestmark = pytest.mark.slow

TWENTY = values(0, 20)


async def tokenized(nodes: Cluster) -> list[str]:
    """Tokens of TWENTY. Their records are on all three nodes, and no node knows yet that any of them is settled."""
    tokens = tokens_of((await nodes["n1"].coordinator.tokenize(CLINIC, TWENTY)).tokens)
    await nodes.settled()
    return tokens


async def compared(nodes: Cluster) -> None:
    """Count the records of each node, and compare each node with both others."""
    await nodes.compare_all()
    for node in nodes.values():
        for name in nodes.keys() - {node.name}:
            assert isinstance(await node.healer.anti_entropy.compare(name), Compared)


async def alone(node: Node, tokens: list[str]) -> tuple[list[bytes | Missing], int]:
    """What the node answers, and how many requests it sent to other nodes for it."""
    others = [way for name, way in node.ways.items() if name != node.name]
    before = sum(len(way.asked) for way in others)
    found = await node.coordinator.detokenize(CLINIC, tokens)
    assert not any(isinstance(request, GetSettled) for way in others for request in way.asked)
    return found, sum(len(way.asked) for way in others) - before


async def test_after_a_comparison_each_node_tells_alone_what_it_holds(nodes: Cluster) -> None:
    """Proves: settled records."""
    tokens = await tokenized(nodes)
    assert (await alone(nodes["n1"], tokens)) == (TWENTY, 1)
    await compared(nodes)
    for node in nodes.values():
        assert await alone(node, tokens) == (TWENTY, 0)
    assert nodes["n1"].diary.told_alone == 20


async def test_what_is_not_settled_is_read_by_quorum_beside_what_is(nodes: Cluster) -> None:
    tokens = await tokenized(nodes)
    await compared(nodes)
    more = tokens_of((await nodes["n2"].coordinator.tokenize(CLINIC, values(20, 23))).tokens)
    await nodes.settled()
    mixed = [more[0], tokens[3], "no token", more[1], tokens[4]]
    found, sent = await alone(nodes["n1"], mixed)
    assert found == [values(20, 21)[0], TWENTY[3], Missing.NOT_FOUND, values(21, 22)[0], TWENTY[4]]
    assert sent == 1


async def test_the_notice_of_a_round_settles_its_records_on_every_node(nodes: Cluster) -> None:
    """Proves: settled records."""
    await compared(nodes)
    later: list[tuple[float, Callable[[], None]]] = []
    n1 = nodes["n1"]
    notices = SettleNotices(n1.ways, lambda: n1.coordinator.view, lambda seconds, tell: later.append((seconds, tell)))
    tokens = await tokenized(nodes)
    for round_id in nodes["n1"].diary.committed_rounds:
        notices.committed(round_id)
    ((seconds, tell),) = later
    assert seconds == GATHERED
    assert (await alone(nodes["n3"], tokens))[1] == 1
    tell()
    await nodes.settled()
    for node in nodes.values():
        assert await alone(node, tokens) == (TWENTY, 0)


async def test_another_owner_is_told_nothing_of_what_is_settled(nodes: Cluster) -> None:
    tokens = await tokenized(nodes)
    await compared(nodes)
    assert set(await nodes["n1"].coordinator.detokenize(REGISTRY, tokens)) == {Missing.NOT_FOUND}


async def test_a_node_out_of_touch_with_a_quorum_tells_nothing_alone(nodes: Cluster) -> None:
    """The node answers 503, which keeps its meaning."""
    tokens = await tokenized(nodes)
    await compared(nodes)
    await nodes.cut_off("n2")
    assert await alone(nodes["n1"], tokens) == (TWENTY, 0)
    await nodes.cut_off("n3")
    for asked in (tokens, []):
        with pytest.raises(NoQuorum):
            await nodes["n1"].coordinator.detokenize(CLINIC, asked)


async def test_reads_by_quorum_alone_when_that_is_configured(nodes: Cluster) -> None:
    tokens = await tokenized(nodes)
    await compared(nodes)
    nodes["n1"].coordinator.reads_settled = False
    assert await alone(nodes["n1"], tokens) == (TWENTY, 1)


async def test_a_node_whose_own_disk_hangs_reads_by_quorum_and_asks_it_no_more(nodes: Cluster) -> None:
    tokens = await tokenized(nodes)
    await compared(nodes)
    own, coordinator = nodes["n1"].ways["n1"], nodes["n1"].coordinator
    own.hangs = True
    for _ in range(4):
        assert await coordinator.detokenize(CLINIC, tokens) == TWENTY
    assert [isinstance(request, GetSettled) for request, _ in own.unanswered].count(True) == 1
    assert nodes["n1"].diary.told_alone == 0


async def test_a_node_whose_only_peer_up_does_not_vote_tells_nothing_alone(nodes: Cluster) -> None:
    """A joining disk makes no quorum, so this node answers 503, as its /health does."""
    tokens = await tokenized(nodes)
    await compared(nodes)
    await nodes.cut_off("n3")
    coordinator = nodes["n1"].coordinator
    assert (await alone(nodes["n1"], tokens)) == (TWENTY, 0)
    coordinator.votes = lambda node: node != "n2"
    assert (await alone(nodes["n1"], tokens)) == (TWENTY, 1)


def test_bytes_that_are_not_authentic_or_cannot_be_read_are_asked_of_a_second_node() -> None:
    stores = {name: FaultyStore(MemoryStore()) for name in NODE_NAMES}

    async def test(nodes: Cluster) -> None:
        tokens = await tokenized(nodes)
        await compared(nodes)
        first, second, *_ = sorted(nodes["n1"].records())
        stores["n1"].write({first: flip(nodes["n1"].records()[first], -1)})
        stores["n1"].corrupt.add(second)
        found, sent = await alone(nodes["n1"], tokens)
        assert found == TWENTY
        assert sent > 0
        assert nodes["n1"].diary.told_alone == 18

    in_cluster(test, stores)


async def test_a_comparison_does_not_settle_what_is_written_while_it_goes_on(nodes: Cluster) -> None:
    """The records are on one disk alone, and are read after the sums were taken."""
    await compared(nodes)
    for name in ("n2", "n3"):
        nodes["n1"].ways[name].drops = lambda request: "Put" in repr(request)
    with pytest.raises(NoQuorum):
        await nodes["n1"].coordinator.tokenize(CLINIC, TWENTY)
    await nodes["n1"].settled()
    keys = sorted(nodes["n1"].records())
    assert await on_storage_thread(nodes["n1"].commit, lambda replica: replica.settled.select(keys)) == []


def items_put(node: Node) -> list[int]:
    """The number of items in each batch that the node sent to n3 since the last call."""
    asked = node.ways["n3"].asked
    counts = [len(request.digests) for request in asked if isinstance(request, Put)]
    asked.clear()
    return counts


async def test_a_repeat_that_is_settled_is_not_written_again_and_meets_the_fence(nodes: Cluster) -> None:
    """Proves: the fence, settled records."""
    tokens = await tokenized(nodes)
    await compared(nodes)
    n2 = nodes["n2"].coordinator
    items_put(nodes["n2"])
    assert (await n2.tokenize(CLINIC, TWENTY)).tokens == tokens
    assert items_put(nodes["n2"]) == [0]
    new = values(20, 22)
    assert (await n2.tokenize(CLINIC, [new[0], *TWENTY, new[1]])).tokens[1:-1] == tokens
    assert items_put(nodes["n2"]) == [2]
    assert await nodes["n1"].coordinator.rotate(CLINIC, 1) == 2
    again = await n2.tokenize(CLINIC, TWENTY)
    assert again.epoch == 2
    assert not set(again.tokens) & set(tokens)
    assert items_put(nodes["n2"]) == [0, 20]
    nodes["n2"].ways["n1"].up = nodes["n2"].ways["n3"].up = False
    with pytest.raises(NoQuorum):
        await n2.tokenize(CLINIC, TWENTY)


def asked_of(node: Node) -> dict[str, list[type]]:
    """The kinds of requests that the node sent to each replica since the last call."""
    asked = {name: [type(request) for request in way.asked] for name, way in node.ways.items()}
    for way in node.ways.values():
        way.asked.clear()
    return asked


@pytest.mark.parametrize(("by", "peer"), [("n1", "n2"), ("n2", "n3"), ("n3", "n1")])
async def test_the_fence_of_a_repeat_that_is_settled_is_asked_of_the_own_replica_and_one_peer(
    nodes: Cluster, by: str, peer: str
) -> None:
    """Proves: the fence."""
    tokens = await tokenized(nodes)
    await compared(nodes)
    node = nodes[by]
    coordinator = node.coordinator
    coordinator._checks, coordinator._hedging = FenceChecks(60.0), Hedging(60.0, 60.0, lambda hedge: None)  # nobody is late
    (other,) = nodes.keys() - {by, peer}
    asked_of(node)
    for _ in range(3):
        assert (await node.coordinator.tokenize(CLINIC, TWENTY)).tokens == tokens
        assert asked_of(node) == {by: [GetSettled], peer: [Put], other: []}
    node.ways[peer].up = False
    assert (await node.coordinator.tokenize(CLINIC, TWENTY)).tokens == tokens
    assert asked_of(node) == {by: [GetSettled], peer: [], other: [Put]}


async def test_a_peer_that_hangs_holds_up_one_check_of_the_fence_and_is_not_relied_on_from_then_on(nodes: Cluster) -> None:
    tokens = await tokenized(nodes)
    await compared(nodes)
    n1 = nodes["n1"]
    n1.ways["n2"].hangs = True
    n1.coordinator._checks = FenceChecks(0.001)
    asked_of(n1)
    assert (await n1.coordinator.tokenize(CLINIC, TWENTY)).tokens == tokens
    assert asked_of(n1) == {"n1": [GetSettled], "n2": [Put], "n3": [Put]}
    assert not n1.coordinator._checks.relies_on("n2")
    n1.coordinator._checks = FenceChecks(60.0)
    n1.coordinator._checks.begin(0.0).refused("n2", 0.0)
    assert (await n1.coordinator.tokenize(CLINIC, TWENTY)).tokens == tokens  # with no wait at all: both were asked at once
    assert asked_of(n1) == {"n1": [GetSettled], "n2": [Put], "n3": [Put]}
    assert n1.diary.hedges == []


async def test_a_replica_whose_register_is_older_has_no_vote_on_the_fence(nodes: Cluster) -> None:
    """Its register is raised by the write, as before."""
    await tokenized(nodes)
    nodes["n1"].ways["n3"].drops = lambda request: isinstance(request, RaiseEpoch | Put)
    assert await nodes["n1"].coordinator.rotate(CLINIC, 1) == 2
    second = tokens_of((await nodes["n1"].coordinator.tokenize(CLINIC, TWENTY)).tokens)
    await nodes.settled()
    n3 = nodes["n3"]
    n3.store.write({key: record for key, record in nodes["n1"].records().items() if key not in n3.records()})
    await compared(nodes)
    assert await n3.coordinator.epoch(CLINIC) == 2
    n3.store.write({layout.register_key(CLINIC.id): layout.encode_register(1, KEYRING.secret_id)})
    for kinds in ([GetSettled, Put], [GetSettled]):
        asked_of(n3)
        assert (await n3.coordinator.tokenize(CLINIC, TWENTY)).tokens == second
        assert asked_of(n3)["n3"] == kinds
        await nodes.settled()  # two of three acknowledge the first write, and its own replica may be late


async def test_a_vote_on_the_fence_counts_in_its_view_alone(nodes: Cluster) -> None:
    """Proves: a refused round starts again."""
    tokens = await tokenized(nodes)
    await compared(nodes)
    n1 = nodes["n1"]
    first = n1.coordinator.view
    assert first is not None
    newer = View(first.number + 1, b"j" * 16, {**first.disks, "n3": b"j" * 16})

    def enter(request: AnyRequest) -> bool:
        """Two disks enter a newer view when the own replica has the question, which it answers in the former view."""
        if isinstance(request, GetSettled) and n1.coordinator.view == first:
            loop = asyncio.get_running_loop()
            for name in ("n1", "n2"):
                loop.call_soon(nodes[name].commit.submit, ProposeView(request.round, request.view, newer), lambda reply: None)
            loop.call_soon(n1.coordinator.learn, newer)
        return False

    n1.ways["n1"].drops = enter
    asked_of(n1)
    assert (await n1.coordinator.tokenize(CLINIC, TWENTY)).tokens == tokens
    asked = asked_of(n1)["n1"]
    assert asked[:2] == [GetSettled, GetSettled]  # in the newer view nothing is settled yet
    assert set(asked[2:]) == {Put}  # repeated if a replica enters the view in the same group, after that


async def test_a_batch_of_new_values_asks_nobody_what_is_settled(nodes: Cluster) -> None:
    await compared(nodes)
    n1, asked = nodes["n1"], list[tuple[bytes, int, int]]()

    def repeats(owner: bytes, epoch: int, digests: Sequence[bytes]) -> Sequence[int]:
        asked.append((owner, epoch, len(digests)))
        return ()

    n1.coordinator.repeats = repeats
    await n1.coordinator.tokenize(CLINIC, TWENTY)
    assert asked == [(CLINIC.id, 1, 20)]
    assert not any(isinstance(request, GetSettled) for request in n1.ways["n1"].asked)


async def test_values_that_collide_are_named_by_their_own_places(nodes: Cluster) -> None:
    """Settled values are left out of the batch that is written; a collision is reported by its place in the whole batch."""
    await tokenized(nodes)
    (foreign,) = layout.record_keys(CLINIC.id, [1], KEYRING.epoch_keys(CLINIC, 1).digests(values(20, 21)))
    (record, *_) = nodes["n1"].records().values()
    for node in nodes.values():
        node.store.write({foreign: record})
    await compared(nodes)
    written = await nodes["n1"].coordinator.tokenize(CLINIC, [*TWENTY[:3], *values(20, 21), TWENTY[3]])
    assert [index for index, token in enumerate(written.tokens) if token is None] == [3]
