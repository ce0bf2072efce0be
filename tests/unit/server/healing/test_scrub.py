"""The scrub finds damage within one pass and mends it from both other disks, or it gives up the store."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from quorumvault.model import NODE_NAMES
from quorumvault.protocol import records
from quorumvault.protocol.messages import Fetch
from quorumvault.server.healing.scrub import Neighbours
from quorumvault.server.storage import layout
from quorumvault.server.storage.leveldb import UNREADABLE, LevelDBStore
from quorumvault.server.storage.memory import MemoryStore
from quorumvault.server.storage.store import Corrupt
from tests.rigs.faulty_store import FaultyStore
from tests.rigs.healing import CLINIC, REGISTRY, Cluster, Node, in_cluster, values
from tests.rigs.made import flip
from tests.rigs.trio import DISKS

#: For ``heard_after``: peers count as having heard of damage, whatever the clock says.
ALREADY = -1.0

# Each of these tests counts 65,536 buckets on three nodes.
pytestmark = pytest.mark.slow


async def written(nodes: Cluster, count: int = 60) -> list[bytes]:
    """Write records to all three nodes, and count them. Return their keys."""
    await nodes["n1"].coordinator.tokenize(CLINIC, values(0, count))
    await nodes["n2"].coordinator.tokenize(REGISTRY, values(0, 5))
    await nodes.settled()
    await nodes.compare_all()
    return sorted(nodes["n1"].records())


async def one_pass(node: Node) -> None:
    """Scrub until every record has been checked once more."""
    scrub = node.healer.scrub
    until = scrub.counts.passes + (1 if scrub._bucket == 0 else 2)
    while scrub.counts.passes < until:
        await scrub.once()


async def test_a_pass_looks_at_every_record_and_finds_nothing_wrong(nodes: Cluster) -> None:
    await written(nodes)
    await one_pass(nodes["n1"])
    counts = nodes["n1"].healer.scrub.counts
    assert (counts.checked, counts.corrupt, counts.mended) == (65, 0, 0)
    assert nodes["n1"].healer.scrub.damage is None


@pytest.mark.parametrize("at", [0, 1, 11, 30, -1])
async def test_a_flipped_bit_is_mended_from_both_others(nodes: Cluster, at: int) -> None:
    """The bit is in the record's format, kind, tag or value. A flipped bit in the version alone cannot be detected.

    Proves: scrub.
    """
    key = (await written(nodes))[7]
    good = nodes["n1"].records()[key]
    nodes["n1"].store.write({key: flip(good, at)})
    await one_pass(nodes["n1"])
    counts = nodes["n1"].healer.scrub.counts
    assert (counts.corrupt, counts.mended, nodes["n1"].records()[key]) == (1, 1, good)
    await one_pass(nodes["n1"])
    assert counts.corrupt == 1


async def test_rot_stays_unknown_until_both_others_have_answered(nodes: Cluster) -> None:
    key = (await written(nodes))[7]
    n1 = nodes["n1"]
    good = n1.records()[key]
    n1.store.write({key: flip(good, -1)})
    n1.ways["n3"].drops = lambda request: isinstance(request, Fetch)
    with pytest.raises(Exception, match="n3 does not answer"):
        await one_pass(n1)
    assert (n1.records()[key], n1.healer.scrub.counts.corrupt) == (flip(good, -1), 1)
    n1.ways["n3"].drops = lambda request: False
    await n1.healer.scrub.once()
    assert n1.records()[key] == good


async def test_rot_that_the_others_know_nothing_of_is_left_as_it_is(nodes: Cluster) -> None:
    """The rotten bytes are nobody's record, but the key is not absent either: the original may have been acknowledged."""
    (key, *_) = await written(nodes)
    foreign = layout.RECORD + bytes(2) + key[3:]
    nodes["n1"].store.write({foreign: flip(nodes["n1"].records()[key], -1)})
    before = nodes["n1"].records()
    await one_pass(nodes["n1"])
    assert nodes["n1"].records() == before


Change = Callable[[bytes], bytes]
#: By name: what others have instead of the good record, what becomes of the rotten one here, and how many are mended.
OTHERS: dict[str, tuple[dict[str, Change], Change, int]] = {
    "a mark": ({"n2": lambda good: records.CONFLICT_MARK}, lambda good: good, 1),
    # Otherwise the last good copy would become a conflict.
    "other rotten bytes": ({"n3": lambda good: flip(good, -2)}, lambda good: good, 1),
    "the same rotten bytes": (dict.fromkeys(("n2", "n3"), lambda good: flip(good, -1)), lambda good: flip(good, -1), 0),
}


@pytest.mark.parametrize("name", OTHERS)
async def test_rot_becomes_what_the_others_have_that_is_authentic(nodes: Cluster, name: str) -> None:
    others, becomes, mended = OTHERS[name]
    key = (await written(nodes))[7]
    good = nodes["n1"].records()[key]
    nodes["n1"].store.write({key: flip(good, -1)})
    for node, change in others.items():
        nodes[node].store.write({key: change(good)})
    await one_pass(nodes["n1"])
    assert (nodes["n1"].records()[key], nodes["n1"].healer.scrub.counts.mended) == (becomes(good), mended)


@pytest.mark.parametrize("found_by", ["scrub", "read"])
async def test_a_bad_block_is_the_end_of_the_store_once_both_peers_are_active(
    nodes: Cluster, stores: dict[str, FaultyStore], found_by: str
) -> None:
    n1, keys = nodes["n1"], await written(nodes)
    scrub = n1.healer.scrub
    n1.neighbours = Neighbours(all_active=False, damaged=frozenset())
    await scrub.once()
    stores["n1"].corrupt.add(keys[3])
    if found_by == "read":
        assert None not in (await n1.coordinator.tokenize(CLINIC, values(0, 60))).tokens
        await n1.settled()
        await scrub.once()
    else:
        await one_pass(n1)
    assert (scrub.damage, n1.diary.announced, n1.diary.given_up) == ("a block of its store fails its checksum", 1, [])
    n1.neighbours = Neighbours(all_active=True, damaged=frozenset())
    await scrub.once()
    assert n1.diary.given_up == []  # not before the peers must have heard of the damage
    scrub.heard_after = ALREADY
    await scrub.once()
    assert n1.diary.given_up == [scrub.damage]


@pytest.mark.parametrize(("damaged", "room", "goes"), [({"n3"}, True, False), (set(), False, False), (set(), True, True)])
async def test_a_store_is_kept_while_another_is_damaged_too_or_there_is_no_room_for_a_new_one(
    nodes: Cluster, damaged: set[str], room: bool, goes: bool
) -> None:
    """Two damaged stores may have everything between them, but a new copy of one of them could not be complete."""
    node = nodes["n2"]
    scrub = node.healer.scrub
    scrub.heard_after = ALREADY
    scrub.damage = "a test said so"
    node.neighbours, node.room_beside = Neighbours(all_active=True, damaged=frozenset(damaged)), room
    await scrub.once()
    await scrub.once()
    assert node.diary.given_up == (["a test said so"] if goes else [])
    assert "a test said so" in (scrub.problem or "")


@pytest.mark.parametrize(("damaged", "goes"), [({"n3"}, True), ({"n1"}, False), ({"n1", "n3"}, False)])
async def test_of_stores_that_can_be_salvaged_one_goes_after_the_other(nodes: Cluster, damaged: set[str], goes: bool) -> None:
    """A store can be salvaged even if the others are not whole."""
    node = nodes["n2"]
    scrub = node.healer.scrub
    scrub.heard_after, scrub.damage = ALREADY, UNREADABLE
    node.neighbours = Neighbours(all_active=True, damaged=frozenset(damaged))
    await scrub.once()
    await scrub.once()
    assert node.diary.given_up == ([UNREADABLE] if goes else [])


@pytest.mark.parametrize(("damage", "goes"), [(UNREADABLE, True), ("a test said so", False)])
async def test_a_store_that_a_joining_disk_needs_is_salvaged_and_not_copied_anew(nodes: Cluster, damage: str, goes: bool) -> None:
    node = nodes["n2"]
    scrub = node.healer.scrub
    scrub.heard_after, scrub.damage = ALREADY, damage
    node.neighbours = Neighbours(all_active=False, damaged=frozenset(), one_joins=True)
    await scrub.once()
    await scrub.once()
    assert bool(node.diary.given_up) == goes


class _Hiding(FaultyStore):
    """Behaves like LevelDB with a bad filter, which is used for a look-up of one key but not for many keys."""

    hidden: bytes = b""

    def get(self, keys: Sequence[bytes]) -> list[bytes | Corrupt | None]:
        return [None] if keys == [self.hidden] else super().get(keys)


@pytest.mark.parametrize("stores", [{name: _Hiding(MemoryStore()) for name in NODE_NAMES}])
async def test_a_record_that_a_look_up_does_not_find_is_damage(nodes: Cluster, stores: dict[str, _Hiding]) -> None:
    """With a filter that has gone bad in memory, the iterator finds the record and ``get`` does not."""
    keys = await written(nodes)
    stores["n1"].hidden = keys[9]
    await one_pass(nodes["n1"])
    assert nodes["n1"].healer.scrub.damage == "its store holds records that a look-up does not find"


async def test_a_record_that_is_gone_is_damage(nodes: Cluster) -> None:
    keys = await written(nodes)
    nodes["n1"].store.write({}, [keys[9]])
    await one_pass(nodes["n1"])
    assert nodes["n1"].healer.scrub.damage == "its store does not hold the records that were written to it"


async def test_writes_between_two_slices_are_no_damage(nodes: Cluster) -> None:
    await written(nodes)
    n1 = nodes["n1"]
    for first in range(100, 400, 20):
        await n1.healer.scrub.once()
        await nodes["n2"].coordinator.tokenize(CLINIC, values(first, first + 20))
    await nodes.settled()
    await one_pass(n1)
    assert n1.healer.scrub.damage is None
    assert n1.healer.scrub.counts.corrupt == 0


def test_flipped_bits_in_tables_are_found_and_no_record_is_mistaken(tmp_path: Path) -> None:
    """The bits are in a block of LevelDB's largest table: its records are unknown, and those of other blocks are unchanged."""
    for name in NODE_NAMES:
        store = LevelDBStore.create(tmp_path / name, DISKS[name])
        store.close()

    def opened() -> dict[str, LevelDBStore]:
        return {name: LevelDBStore.open(tmp_path / name, DISKS[name]) for name in NODE_NAMES}

    stores = opened()
    in_cluster(fill, stores)
    stores["n1"]._db.compact_range()
    for store in stores.values():
        store.close()
    table = max((tmp_path / "n1").glob("*.ldb"), key=lambda path: path.stat().st_size)
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 0x10
    table.write_bytes(bytes(data))
    stores = opened()

    async def test(nodes: Cluster) -> None:
        await nodes.compare_all()
        await one_pass(nodes["n1"])
        assert nodes["n1"].healer.scrub.damage == "a block of its store fails its checksum"
        outcome = await nodes["n2"].healer.anti_entropy.compare("n1")
        assert not isinstance(outcome, str)
        assert (outcome.taken, outcome.given) == (0, 0)
        assert outcome.unreadable > 0

    in_cluster(test, stores)
    for store in stores.values():
        store.close()


async def fill(nodes: Cluster) -> None:
    await nodes["n1"].coordinator.tokenize(CLINIC, values(0, 2000))
    await nodes.settled()
