"""The filter of present keys: whatever is written or counted, rots or outgrows it, it calls no key of the store absent.

A replica with a filter gives the same answers and stores the same records as one without a filter.
"""

from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from random import Random
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from quorumvault.crypto import canonical
from quorumvault.errors import StorageFailed
from quorumvault.model import Version
from quorumvault.protocol import messages, records
from quorumvault.protocol.buckets import BUCKETS
from quorumvault.server.replica import bucket_sums, inventory, present_keys
from quorumvault.server.replica.present_keys import PresentKeys
from quorumvault.server.storage import layout
from quorumvault.server.storage.leveldb import LevelDBStore
from quorumvault.server.storage.memory import MemoryStore
from quorumvault.server.storage.store import CORRUPT
from tests.rigs.faulty_store import FaultyStore
from tests.rigs.trio import ACME, DISKS, KEYRING, VIEW, make_replica

HEAD = (messages.RoundId(DISKS["n2"], b"boot", 1), VIEW.id)
#: The buckets in these tests: so few that all of them are soon counted.
FEW = 16
SEALER = KEYRING.epoch_keys(ACME, 1)
#: Digests in few buckets, among them the first, the last and some adjacent ones.
DIGESTS = [bucket.to_bytes(2, "big") + bytes([rest]) * 18 for bucket in (0, 1, 2, FEW - 1) for rest in range(12)]
KEYS = layout.record_keys(ACME.id, [1] * len(DIGESTS), DIGESTS)
#: For each digest, two values that may collide under it.
SEALED = {
    digest: SEALER.sealer.seal([canonical.from_str("one"), canonical.from_str("other")], [digest, digest]) for digest in DIGESTS
}

batches = st.lists(st.sampled_from(DIGESTS), min_size=1, max_size=12)
clocks = st.integers(1, 3)
which = st.integers(0, 1)


def put(digests: Sequence[bytes], value: int, clock: int) -> messages.Put:
    sealed = [SEALED[digest][value] for digest in digests]
    return messages.Put(*HEAD, ACME.id, 1, "m1", records.header(Version(clock, 1)), list(digests), sealed, ACME.name)


def write_back(digests: Sequence[bytes], value: int, clock: int) -> messages.WriteBack:
    whole = [records.header(Version(clock, 2)) + SEALED[digest][value] for digest in digests]
    return messages.WriteBack(*HEAD, ACME.name, [1] * len(whole), list(digests), whole)


def held(store: MemoryStore) -> dict[bytes, bytes]:
    return dict(store.scan(layout.RECORD))


class TwoReplicas(RuleBasedStateMachine):
    """Two replicas to which the same happens. One of them never counts its records, and so has no filter."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = ExitStack()
        for module in (present_keys, inventory, bucket_sums):
            self.patches.enter_context(mock.patch.object(module, "BUCKETS", FEW))
        self.patches.enter_context(mock.patch.multiple(present_keys, _LEAST=4, MOST_KEYS=32))
        self.disks = MemoryStore(), MemoryStore()
        self.unreadable: set[bytes] = set()
        #: By key, the sealed bytes that were there first.
        self.first: dict[bytes, bytes] = {}
        self.restart()

    def teardown(self) -> None:
        self.patches.close()

    @rule()
    def restart(self) -> None:
        """Start again after a crash between two groups."""
        self.stores = [FaultyStore(disk) for disk in self.disks]
        for store in self.stores:
            store.corrupt = self.unreadable
        self.room = True
        self.filtered, self.plain = (make_replica(store, has_room=lambda: self.room) for store in self.stores)

    @rule(requests=st.lists(st.builds(put, batches, which, clocks) | st.builds(write_back, batches, which, clocks), max_size=3))
    def a_group(self, requests: list[messages.AnyRequest]) -> None:
        assert self.filtered.handle(requests) == self.plain.handle(requests)

    @rule(requests=st.lists(st.builds(put, batches, which, clocks), min_size=1, max_size=2), kept=st.booleans())
    def a_group_that_fails(self, requests: list[messages.AnyRequest], kept: bool) -> None:
        """The process dies of the failure. The batch is in the store if it is ``kept``."""
        for store, replica in zip(self.stores, (self.filtered, self.plain), strict=True):
            store.fail_write, store.fails_late = True, kept
            with suppress(StorageFailed):  # if there is anything to write
                replica.handle(requests)
        self.restart()

    @rule(digests=batches, value=which, clock=clocks)
    def a_copy(self, digests: list[bytes], value: int, clock: int) -> None:
        """A copy while joining, or from a comparison. A copy over an unreadable record ends the process, so none is made."""
        offered = {key: records.header(Version(clock, 3)) + SEALED[key[1:3] + key[23:]][value] for key in self.keys(digests)}
        if self.unreadable.isdisjoint(offered):
            assert self.filtered.merge(list(offered), list(offered.values())) == self.plain.merge([*offered], [*offered.values()])

    @rule(first=st.integers(0, FEW - 1), records=st.integers(1, 4))
    def a_slice_is_counted(self, first: int, records: int) -> None:
        self.filtered.inventory.slice_records = records
        self.filtered.inventory.count(first)

    @rule()
    def all_is_counted(self) -> None:
        first = 0
        while first < FEW:
            first = self.filtered.inventory.count(first)

    @rule(chosen=st.integers(0))
    def a_block_rots(self, chosen: int) -> None:
        if there := sorted(held(self.disks[0]).keys() - self.unreadable):
            self.unreadable.add(there[chosen % len(there)])

    @precondition(lambda self: self.unreadable)
    @rule(chosen=st.integers(0))
    def a_block_can_be_read_again(self, chosen: int) -> None:
        self.unreadable.remove(sorted(self.unreadable)[chosen % len(self.unreadable)])

    @rule(room=st.booleans())
    def the_disk_is_full_or_not(self, room: bool) -> None:
        self.room = room

    @invariant()
    def no_key_of_the_store_is_called_absent(self) -> None:
        assert not self.filtered.present.absent(list(held(self.disks[0])))

    @invariant()
    def nothing_is_written_but_once_and_both_stores_are_the_same(self) -> None:
        here, there = map(held, self.disks)
        assert here == there
        for key, record in here.items():
            sealed = records.sealed_of(record)
            assert record == records.CONFLICT_MARK or sealed == self.first.setdefault(key, sealed)

    @staticmethod
    def keys(digests: Sequence[bytes]) -> list[bytes]:
        return layout.record_keys(ACME.id, [1] * len(set(digests)), sorted(set(digests)))


TwoReplicas.TestCase.settings = settings(deadline=None, stateful_step_count=30)
test_a_replica_with_a_filter_does_what_one_without_does = TwoReplicas.TestCase


def test_a_new_value_is_not_looked_up_and_one_that_is_there_is() -> None:
    store = FaultyStore(MemoryStore())
    replica = make_replica(store)
    replica.handle([put(DIGESTS[:3], 0, 1)])
    assert (replica.present.looked_up, replica.present.spared) == (3, 0)
    first = 0
    while first < BUCKETS:
        first = replica.inventory.count(first)
    with mock.patch.object(store, "get", wraps=store.get) as get:
        replica.handle([put(DIGESTS[3:6], 0, 1)])
        assert KEYS[3:6] not in [call.args[0] for call in get.call_args_list]
        replica.handle([put(DIGESTS[2:8], 0, 1)])
        assert KEYS[2:6] in [call.args[0] for call in get.call_args_list]
    assert (replica.present.looked_up, replica.present.spared) == (3 + 4, 3 + 2)


def test_a_block_that_rots_before_the_count_leaves_its_bucket_to_the_store(tmp_path: Path) -> None:
    """A block that rots after the count hides nothing from the filter. Proves: write-once."""
    path = tmp_path / "store"
    digests = [Random(number).randbytes(20) for number in range(3000)]
    keys = layout.record_keys(ACME.id, [1] * len(digests), digests)
    with closing(LevelDBStore.create(path, DISKS["n1"])) as store:
        store.write(dict.fromkeys(keys, records.header(Version(1, 1)) + bytes(100)))
    LevelDBStore.open(path, DISKS["n1"]).close()  # turns the log into a table
    (table,) = path.glob("*.ldb")
    contents = bytearray(table.read_bytes())
    contents[len(contents) // 2] ^= 0x20
    table.write_bytes(contents)
    with closing(LevelDBStore.open(path, DISKS["n1"])) as store:
        replica = make_replica(store)
        first = 0
        while first < BUCKETS:
            first = replica.inventory.count(first)
        unreadable = [key for key, value in zip(keys, store.get(keys), strict=True) if value is CORRUPT]
        assert unreadable
        assert not replica.present.absent(keys)
        absent = layout.record_keys(ACME.id, [1] * 3000, [Random(number).randbytes(20) for number in range(3000, 6000)])
        spared = set(replica.present.absent(absent))
        assert len(spared) > 2900
        buckets = {layout.bucket_of(key) for key in unreadable}
        assert not any(layout.bucket_of(key) in buckets for key in spared)


def test_a_filter_that_is_outgrown_is_followed_by_others_up_to_a_limit() -> None:
    """Wrong answers stay rare until the limit is reached. Then they become more frequent, but no key is ever forgotten."""
    draw = Random(5).randbytes
    with mock.patch.multiple(present_keys, _LEAST=1000, MOST_KEYS=8000):
        present = PresentKeys()
        present.add([b"r" + draw(40)])  # before the first count, which will find this key
        assert present.bytes == 0
        present.learn(dict.fromkeys(range(BUCKETS), ()))
        keys, sizes = list[bytes](), set[int]()
        for _ in range(80):
            batch = [b"r" + draw(40) for _ in range(200)]
            present.add(batch)
            keys += batch
            sizes.add(present.bytes)
            if len(keys) == 8000:
                assert len(present.absent([b"r" + draw(40) for _ in range(1000)])) > 950
    assert len(sizes) == 4
    assert max(sizes) < 8000 * 2
    assert not present.absent(keys)
    assert 300 < len(present.absent([b"r" + draw(40) for _ in range(1000)])) < 950


def test_the_first_filter_has_room_for_what_some_buckets_tell_of_all() -> None:
    present = PresentKeys()
    present.learn({bucket: [bucket.to_bytes(3, "big") + bytes([n]) for n in range(40)] for bucket in range(20)})
    assert present.bytes == pytest.approx(40 * BUCKETS * 1.25 * 1.2, rel=0.02)
    skewed = PresentKeys()
    skewed.learn({0: [number.to_bytes(8, "big") for number in range(10_000)]})
    assert skewed.bytes == pytest.approx(present_keys.MOST_KEYS * 1.2, rel=0.02)


@pytest.mark.parametrize("unreadable", [False, True])
def test_a_bucket_of_more_records_than_a_slice_takes_is_counted_all_the_same(unreadable: bool) -> None:
    """The count also gets past the store's last bucket, and past one with an unreadable block after those records."""
    store = FaultyStore(MemoryStore())
    replica = make_replica(store)
    replica.handle([put(DIGESTS[:6], 0, 1)])
    store.corrupt = set(KEYS[5:6]) if unreadable else set()
    replica.inventory.slice_records = 2
    assert replica.inventory.count(0) == 1
    assert replica.inventory.inspect(0).next == 1
