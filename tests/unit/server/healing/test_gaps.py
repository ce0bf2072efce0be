"""Gaps: a disk that does not know what it had says so, gets it from the others, and knows when it has all of it."""

from collections.abc import Iterable, Mapping

import pytest

from quorumvault.crypto import tokens
from quorumvault.model import NODE_NAMES
from quorumvault.protocol.messages import Get, RoundId
from quorumvault.server.coordinator.vault import Missing
from quorumvault.server.healing.anti_entropy import WholeBuckets
from quorumvault.server.healing.requests import on_storage_thread
from quorumvault.server.storage import layout
from quorumvault.server.storage.gaps import END_OF_PLACES, Gap, Gaps
from quorumvault.server.storage.memory import MemoryStore
from tests.rigs.healing import CLINIC, Cluster, Node, in_cluster
from tests.rigs.trio import VIEW
from tests.unit.server.healing.test_anti_entropy import content_of

pytestmark = pytest.mark.slow

CONTENT = content_of((CLINIC, 1, number, 1) for number in range(30))
KEYS = sorted(CONTENT)
NAME = {layout.owner_key(CLINIC.id): CLINIC.name.encode()}


def stores(lost: Mapping[str, Iterable[int]]) -> dict[str, MemoryStore]:
    """By node which of the records, by their place in the order of keys, its disk has lost and does not know any more."""
    made = {}
    for node in NODE_NAMES:
        keys = {KEYS[number] for number in lost.get(node, ())}
        made[node] = MemoryStore()
        made[node].write(NAME | {key: CONTENT[key] for key in KEYS if key not in keys})
        made[node].write(Gaps(Gap(key[1:], key[1:] + b"\0") for key in keys).pairs())
    return made


async def counted(nodes: Cluster) -> None:
    for node in nodes.values():
        await node.healer.anti_entropy._count()


def gaps(node: Node) -> list[Gap]:
    return list(Gaps.of(node.store))


async def unknown(node: Node, *numbers: int) -> list[int]:
    """Those of these records of which its replica says neither what it has nor that it has none."""
    keys = [layout.parse_place(KEYS[number][1:]) for number in numbers]
    epochs, digests = [epoch for _, epoch, _ in keys], [digest for *_, digest in keys]
    get = Get(RoundId(b"d" * 16, b"boot", 1), VIEW.id, CLINIC.id, epochs, digests)
    reply = await on_storage_thread(node.commit, lambda replica: replica.handle([get])[0])
    assert all(reply.records[index] is None for index in reply.unknown)
    return [numbers[index] for index in reply.unknown]


def test_a_gap_is_unknown_until_both_others_were_read_there() -> None:
    """Proves: what is not known is not absent."""

    async def test(nodes: Cluster) -> None:
        n1 = nodes["n1"]
        await counted(nodes)
        assert await unknown(n1, 3, 4, 8, 10) == [4, 8]
        await n1.healer.anti_entropy.compare("n2")
        assert n1.records() == CONTENT
        assert len(gaps(n1)) == 2
        assert await unknown(n1, 4, 8) == []
        await n1.healer.anti_entropy.compare("n3")
        assert gaps(n1) == []
        assert not await n1.healer.anti_entropy.verify("n3")

    in_cluster(test, stores({"n1": [4, 8]}))


def test_a_gap_over_buckets_in_which_nobody_has_anything_is_closed_too() -> None:
    made = stores({})
    made["n1"].write(Gaps([Gap(b"\x10\x00\x01", b"\x20\x00"), Gap(b"\xff\xff", END_OF_PLACES)]).pairs())

    async def test(nodes: Cluster) -> None:
        await counted(nodes)
        await nodes["n1"].healer.anti_entropy.repair()
        assert gaps(nodes["n1"]) == []

    in_cluster(test, made)


def test_what_two_disks_do_not_know_stays_unknown_though_the_third_has_it() -> None:
    """Something else may have been acknowledged by the two: the third one's word for it does not do.

    Proves: what is not known is not absent.
    """

    async def test(nodes: Cluster) -> None:
        await counted(nodes)
        for _ in range(3):
            for node in nodes.values():
                await node.healer.anti_entropy.repair()
        assert all(node.records() == CONTENT for node in nodes.values())
        both = layout.bucket_of(KEYS[8])
        assert [layout.bucket_of(layout.RECORD + gap.first) for name in ("n1", "n2") for gap in gaps(nodes[name])] == [both, both]
        assert gaps(nodes["n3"]) == []
        assert await nodes["n1"].healer.anti_entropy.give_up_gaps() == 1
        for _ in range(2):
            await nodes["n2"].healer.anti_entropy.repair()
        assert gaps(nodes["n1"]) == gaps(nodes["n2"]) == []

    in_cluster(test, stores({"n1": [4, 8], "n2": [8, 12]}))


def test_what_no_disk_knows_is_never_called_absent() -> None:
    """Proves: what is not known is not absent."""

    async def test(nodes: Cluster) -> None:
        await counted(nodes)
        for node in nodes.values():
            await node.healer.anti_entropy.repair()
        _, epoch, digest = layout.parse_place(KEYS[8][1:])
        for node in nodes.values():
            (found,) = await node.coordinator.detokenize(CLINIC, tokens.format_tokens(epoch, [digest]))
            assert found is Missing.UNAVAILABLE
            assert len(gaps(node)) == 1

    in_cluster(test, stores({"n1": [8], "n2": [8], "n3": [8, 3]}))


def test_a_view_that_changes_between_the_two_comparisons_begins_them_anew() -> None:
    whole, later = WholeBuckets(2), (VIEW.id[0] + 1, VIEW.id[1])
    assert whole.note("n2", VIEW.id, [7]) == []
    assert whole.note("n3", later, [7]) == []
    assert whole.note("n2", later, [7]) == [7]
