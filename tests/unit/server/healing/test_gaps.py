"""Gaps: a disk that no longer knows what it held says so, takes it from both others, and knows when it is complete."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping

import pytest

from quorumvault.crypto import canonical, tokens
from quorumvault.errors import NoQuorum
from quorumvault.model import NODE_NAMES, Version
from quorumvault.protocol import records
from quorumvault.protocol.anti_entropy import CannotCompare
from quorumvault.protocol.fill_gaps import Filled, fill_slice
from quorumvault.protocol.messages import Get, Listing, Put, RoundId, WriteBack
from quorumvault.protocol.views import ViewId
from quorumvault.server.coordinator.vault import Missing
from quorumvault.server.healing.fill_gaps import close_gaps
from quorumvault.server.healing.requests import on_storage_thread
from quorumvault.server.storage import layout
from quorumvault.server.storage.gaps import END_OF_PLACES, Gap, Gaps
from quorumvault.server.storage.memory import MemoryStore
from tests.rigs.healing import CLINIC, Cluster, Node, in_cluster, values
from tests.rigs.trio import KEYRING, VIEW
from tests.unit.server.healing.test_anti_entropy import content_of

pytestmark = pytest.mark.slow

CONTENT = content_of((CLINIC, 1, number, 1) for number in range(30))
KEYS = sorted(CONTENT)
NAME = {layout.owner_key(CLINIC.id): CLINIC.name.encode()}


def stores(lost: Mapping[str, Iterable[int]]) -> dict[str, MemoryStore]:
    """Make the nodes' stores. ``lost`` has by node the records that its disk no longer knows, as places in the order of keys."""
    made = {}
    for node in NODE_NAMES:
        keys = {KEYS[number] for number in lost.get(node, ())}
        made[node] = MemoryStore()
        made[node].write(NAME | {key: CONTENT[key] for key in KEYS if key not in keys})
        made[node].write(Gaps(Gap(key[1:], key[1:] + b"\0") for key in keys).pairs())
    return made


async def counted(nodes: Cluster) -> None:
    """Count all buckets, and let no request be under way that began before the nodes did."""
    for node in nodes.values():
        await node.healer.anti_entropy._count()
        node.healer.anti_entropy.gaps.rounds_end_after = 0.0


def gaps(node: Node) -> list[Gap]:
    return list(Gaps.of(node.store))


async def unknown(node: Node, *numbers: int) -> list[int]:
    """Those of these records for which the node's replica reports neither a value nor an absence."""
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
        filling = n1.healer.anti_entropy.gaps
        # Neither comparison fills the gap: what one disk has may be a leftover, and another value may have been acknowledged.
        await n1.healer.anti_entropy.compare("n2")
        await nodes["n3"].healer.anti_entropy.compare("n1")
        await nodes.cut_off("n3")
        assert await filling.once() is None
        assert await unknown(n1, 3, 4, 8, 10) == [4, 8]
        assert len(gaps(n1)) == 2
        nodes.bring_back("n3")
        assert await filling.once() == Filled(taken=2, closed=2)
        assert n1.records() == CONTENT
        assert gaps(n1) == []
        assert await unknown(n1, 4, 8) == []
        assert not await n1.healer.anti_entropy.verify("n3")

    in_cluster(test, stores({"n1": [4, 8]}))


def test_two_values_that_meet_in_a_gap_leave_it_open() -> None:
    """This disk may have acknowledged either value, together with the disk that has it.

    Proves: write-once.
    """
    made = stores({"n1": [8, 12]})
    made["n3"].write({KEYS[8]: another_value(KEYS[8])})

    async def test(nodes: Cluster) -> None:
        await counted(nodes)
        assert await nodes["n1"].healer.anti_entropy.gaps.once() == Filled(taken=1, closed=1)
        assert await unknown(nodes["n1"], 8, 12) == [8]

    in_cluster(test, made)


def another_value(key: bytes) -> bytes:
    """An authentic record under this key that holds another value."""
    _, epoch, digest = layout.parse_place(key[1:])
    (sealed,) = KEYRING.epoch_keys(CLINIC, epoch).sealer.seal([b"another value"], [digest])
    return records.header(Version(1, 3)) + sealed


def test_a_gap_takes_no_put_and_no_write_back() -> None:
    """Proves: write-once, what is not known is not absent."""

    async def test(nodes: Cluster) -> None:
        n1 = nodes["n1"]
        _, epoch, digest = layout.parse_place(KEYS[8][1:])
        _, _, known = layout.parse_place(KEYS[9][1:])
        record, there = CONTENT[KEYS[8]], CONTENT[KEYS[9]]
        round_id = RoundId(b"d" * 16, b"boot", 1)
        header, sealed = record[: records.HEADER_BYTES], [records.sealed_of(record), records.sealed_of(there)]
        put = Put(round_id, VIEW.id, CLINIC.id, epoch, "m1", header, [digest, known], sealed, CLINIC.name)
        back = WriteBack(round_id, VIEW.id, CLINIC.name, [epoch], [digest], [record])
        replies = await on_storage_thread(n1.commit, lambda replica: replica.handle([put, back]))
        assert [reply.refused for reply in replies] == [{0: b""}, {0: b""}]
        assert await unknown(n1, 8) == [8]
        # The two other disks take the value.
        await nodes["n2"].coordinator.tokenize(CLINIC, [canonical.from_str("new")])

    in_cluster(test, stores({"n1": [8]}))


def test_a_gap_is_filled_when_nobody_counts_any_more_what_was_acknowledged_before() -> None:
    async def test(nodes: Cluster) -> None:
        n1 = nodes["n1"]
        await counted(nodes)
        filling = n1.healer.anti_entropy.gaps
        filling.rounds_end_after = 3600.0
        assert await filling.once() is None
        filling._ended = asyncio.get_running_loop().time()
        assert await filling.once() == Filled(taken=2, closed=2)

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
    """The two disks may have acknowledged something else, so the third disk's record is not enough.

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
        assert await nodes["n1"].healer.anti_entropy.give_up_gaps(read_first=True) == 1
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


def test_what_a_restored_backup_does_not_know_is_unknown_on_all_three_until_it_is_given_up() -> None:
    """Each disk of the new cluster has the backup's gaps, so no comparison closes them. Nor does a disk take a value there.

    Proves: what is not known is not absent.
    """
    made = stores({node: [8] for node in NODE_NAMES})
    _, epoch, digest = layout.parse_place(KEYS[8][1:])
    (token,), (lost,) = tokens.format_tokens(epoch, [digest]), [each for each in values(0, 30) if digest_of(each) == digest]

    async def test(nodes: Cluster) -> None:
        await counted(nodes)
        for node in nodes.values():
            await node.healer.anti_entropy.repair()
            assert await node.coordinator.detokenize(CLINIC, [token]) == [Missing.UNAVAILABLE]
            with pytest.raises(NoQuorum):
                await node.coordinator.tokenize(CLINIC, [lost])
        # By then the last node reads that the two others have nothing there.
        assert [await node.healer.anti_entropy.give_up_gaps(read_first=True) for node in nodes.values()] == [1, 1, 0]
        assert await nodes["n1"].coordinator.detokenize(CLINIC, [token]) == [Missing.NOT_FOUND]
        await nodes["n1"].coordinator.tokenize(CLINIC, [lost])
        assert await nodes["n2"].coordinator.detokenize(CLINIC, [token]) == [lost]

    in_cluster(test, made)


def digest_of(value: bytes) -> bytes:
    return KEYRING.epoch_keys(CLINIC, 1).digests([value])[0]


def test_a_gap_is_closed_in_one_view() -> None:
    """Between two views, a disk may have been replaced by a disk that has less."""
    bucket = layout.bucket_of(KEYS[4])
    later = (VIEW.id[0] + 1, VIEW.id[1])

    def answers(*views: ViewId) -> Iterator[Listing]:
        return (Listing(RoundId(b"d", b"b", 1), view, b"disk", bucket + 1, [], [], []) for view in views)

    steps = fill_slice(bucket, bucket + 1, Filled())
    next(steps)
    for listing in answers(VIEW.id, VIEW.id):
        steps.send(listing)
    with pytest.raises(CannotCompare, match="the view has changed"):
        steps.send(*answers(later))

    async def test(nodes: Cluster) -> None:
        n1 = nodes["n1"]
        await on_storage_thread(n1.commit, lambda replica: close_gaps(replica, later, [bucket]))
        assert len(gaps(n1)) == 1

    in_cluster(test, stores({"n1": [4]}))
