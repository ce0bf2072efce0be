"""Settled records: a replica answers alone only with what it has learned to be settled, and not with what was written since."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from quorumvault.crypto.keys import Keyring
from quorumvault.model import Owner, Version
from quorumvault.protocol import messages, records
from quorumvault.protocol.buckets import BUCKETS
from quorumvault.protocol.messages import AnyRequest, RoundId
from quorumvault.protocol.views import View
from quorumvault.server.replica.record_cache import RecordCache
from quorumvault.server.replica.replica import OwnWork, Replica
from quorumvault.server.replica.settled import SettledRecords
from quorumvault.server.storage import layout
from quorumvault.server.storage.memory import MemoryStore
from tests.rigs.faulty_store import FaultyStore
from tests.rigs.trio import DISKS, KEYRING, VIEW, make_replica

ACME = Owner("acme")
NARROW = Keyring("m1", bytes(range(32)), digest_bits=8)
ALL = [range(BUCKETS)]


def round_of(counter: int, boot: bytes = b"boot") -> RoundId:
    return RoundId(DISKS["n2"], boot, counter)


def key_of(number: int) -> bytes:
    """A key in one of few buckets."""
    return layout.record_keys(ACME.id, [1], [bytes([0, number % 3]) + number.to_bytes(18, "big")])[0]


# The knowledge of settled records by itself.

_ROUNDS = st.integers(1, 3)
_KEYS = st.lists(st.integers(0, 5), max_size=3, unique=True)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), _ROUNDS, _KEYS),
        st.tuples(st.just("notice"), _ROUNDS, st.just([])),
        st.tuples(st.just("snapshot"), _ROUNDS, st.just([])),
        st.tuples(st.just("compared"), _ROUNDS, st.lists(st.integers(0, 2), max_size=3)),
        st.tuples(st.just("forget"), _ROUNDS, st.just([])),
    ),
    max_size=30,
)


@given(_STEPS, st.integers(1, 8))
def test_nothing_counts_as_settled_that_was_not_shown_to_be(steps: Sequence[tuple[str, int, list[int]]], limit: int) -> None:
    """Proves: settled records.

    This holds however small the room is, and in any order of rounds, notices, comparisons and writes.
    """
    settled = SettledRecords(limit, limit)
    sequence = snapshot = 0
    written: dict[int, int] = {}  # key to the sequence of its last write
    shown: set[int] = set()
    rounds: dict[int, list[int]] = {}
    for step, round_, keys in steps:
        match step:
            case "write":
                sequence += 1
                settled.wrote([key_of(number) for number in keys], sequence)
                settled.stored(round_of(round_), [key_of(number) for number in keys])
                written.update(dict.fromkeys(keys, sequence))
                shown.difference_update(keys)
                rounds.update({round_: keys} if keys else {})
            case "notice":
                settled.committed([round_of(round_)])
                shown.update(rounds.pop(round_, []))
            case "snapshot":
                snapshot = sequence
            case "compared":
                settled.compared([range(bucket, bucket + 1) for bucket in keys], snapshot)
                shown.update(number for number, at in written.items() if number % 3 in keys and at <= snapshot)
            case "forget":
                settled.forget()
                shown, rounds, snapshot = set(), {}, sequence
        told = settled.select([key_of(number) for number in range(6)])
        assert {number for number in told if number in written} <= shown


def test_a_key_is_settled_by_a_notice_or_by_a_comparison_after_it() -> None:
    settled = SettledRecords()
    settled.compared(ALL, 0)
    settled.wrote([key_of(1), key_of(2)], 1)
    settled.stored(round_of(1), [key_of(1)])
    assert settled.select([key_of(1), key_of(2)]) == []
    settled.committed([round_of(1, b"another life"), round_of(2)])
    assert settled.select([key_of(1), key_of(2)]) == []
    settled.committed([round_of(1)])
    assert settled.select([key_of(1), key_of(2)]) == [0]
    settled.compared(ALL, 0)
    assert settled.select([key_of(2)]) == []
    settled.compared(ALL, 1)
    assert settled.select([key_of(2)]) == [0]


def test_what_there_is_no_room_for_unsettles_its_bucket_and_comparisons_that_began_before() -> None:
    settled = SettledRecords(unsettled_keys=1)
    settled.compared(ALL, 0)
    settled.wrote([key_of(0), key_of(1)], 1)
    settled.compared([range(3)], 0)
    assert settled.select([key_of(0), key_of(1)]) == []
    settled.compared(ALL, 1)
    assert settled.select([key_of(0), key_of(1)]) == [0, 1]


# A replica with this knowledge.


def replica_that_settled(store: MemoryStore | FaultyStore, keyring: Keyring = KEYRING, **options: Any) -> Replica:
    """An active replica, all of whose buckets were compared while they were empty; ``options`` are those of Replica."""
    replica = make_replica(store, "n1", keyring, **options)
    replica.settle(VIEW.id, ALL, replica.sequence)
    return replica


def put(value: bytes, counter: int = 1, keyring: Keyring = KEYRING) -> messages.Put:
    keys = keyring.epoch_keys(ACME, 1)
    digests = keys.digests([value])
    header = records.header(Version(counter, 1))
    return messages.Put(round_of(counter), VIEW.id, ACME.id, 1, "m1", header, digests, keys.sealer.seal([value], digests), "acme")


def get(value: bytes, keyring: Keyring = KEYRING) -> messages.GetSettled:
    return messages.GetSettled(round_of(99), VIEW.id, ACME.id, [1], keyring.epoch_keys(ACME, 1).digests([value]))


def notice(*counters: int) -> messages.Settle:
    return messages.Settle(round_of(0), VIEW.id, list(counters))


def told(replica: Replica, *requests: AnyRequest | OwnWork) -> bytes | None:
    """Handle the requests in one group. Return the record in the answer to the last one."""
    reply = replica.handle(requests)[-1]
    assert isinstance(reply, messages.Settled)
    return reply.records[0]


VALUE = b"=value"
#: Another value with the same token as VALUE, where tokens are narrow.
OTHER = next(v for v in map(b"i%d".__mod__, range(10_000)) if get(v, NARROW).digests == get(VALUE, NARROW).digests)


def test_a_record_is_told_alone_once_its_round_is_known_to_be_committed() -> None:
    replica = replica_that_settled(MemoryStore())
    assert told(replica, put(VALUE), get(VALUE)) is None
    assert told(replica, get(VALUE)) is None
    assert told(replica, notice(1), get(VALUE)) is None  # a notice counts only after its group is written
    record = told(replica, get(VALUE))
    assert record is not None
    assert records.holds_value(record)


def test_a_notice_in_the_group_of_its_put_counts_for_what_is_durable() -> None:
    replica = replica_that_settled(MemoryStore())
    assert told(replica, put(VALUE), notice(1), get(VALUE)) is None
    assert told(replica, get(VALUE)) is not None


def test_an_item_that_was_refused_is_not_settled_by_its_round() -> None:
    replica = replica_that_settled(MemoryStore(), NARROW)
    replica.handle([put(VALUE, 1, NARROW)])
    replica.handle([put(OTHER, 2, NARROW)])
    assert told(replica, notice(2), get(VALUE, NARROW)) is None
    assert told(replica, get(VALUE, NARROW)) is None


def test_a_put_that_found_no_room_leaves_nothing_to_be_settled() -> None:
    store, room = MemoryStore(), [False]
    replica = replica_that_settled(store, has_room=lambda: room[0])
    (reply,) = replica.handle([put(VALUE)])
    assert isinstance(reply, messages.NotVoting)
    assert reply.full
    room[0] = True
    replica.handle([put(VALUE, 2)])
    assert told(replica, notice(1), get(VALUE)) is None
    assert told(replica, get(VALUE)) is None


def test_only_values_are_told_alone() -> None:
    store = FaultyStore(MemoryStore())
    replica = replica_that_settled(store)
    assert told(replica, get(VALUE)) is None  # absent
    replica.handle([put(VALUE), notice(1)])
    (key,) = [key for key, _ in store.scan(layout.RECORD)]
    store.corrupt.add(key)
    assert told(replica, get(VALUE)) is None
    store.corrupt.clear()
    store.write({key: records.CONFLICT_MARK})
    assert told(replica, get(VALUE)) is None


def test_a_record_that_was_told_is_told_again_from_memory() -> None:
    store = FaultyStore(MemoryStore())
    replica = replica_that_settled(store, cache=RecordCache(1 << 20))
    assert told(replica, get(VALUE)) is None  # absence is not remembered
    replica.handle([put(VALUE), notice(1)])
    record = told(replica, get(VALUE))
    store.corrupt |= {key for key, _ in store.scan(layout.RECORD)}
    assert told(replica, get(VALUE)) == record
    assert (replica.reader.cache.hits, replica.reader.cache.misses) == (1, 2)


def test_memory_tells_nothing_that_is_not_settled() -> None:
    store = MemoryStore()
    replica = replica_that_settled(store, cache=RecordCache(1 << 20))
    replica.handle([put(VALUE), notice(1)])
    assert told(replica, get(VALUE)) is not None
    replica.settled.forget()
    assert told(replica, get(VALUE)) is None
    replica.settle(VIEW.id, ALL, replica.sequence)
    assert told(replica, get(VALUE)) is not None


@pytest.mark.parametrize("register", [(1, "m1"), (2, "m1"), (1, "m2"), None])
def test_the_vote_on_the_fence_is_for_the_epoch_and_the_secret_of_the_register_alone(register: tuple[int, str] | None) -> None:
    replica = replica_that_settled(MemoryStore())
    if register is not None:
        replica.handle([messages.RaiseEpoch(round_of(1), VIEW.id, ACME.id, *register)])
    votes = {}
    for batch in ((1, "m1"), (2, "m1"), (1, "m2"), (0, "")):
        (reply,) = replica.handle([structs.replace(get(VALUE), epoch=batch[0], secret=batch[1])])
        assert isinstance(reply, messages.Settled)
        votes[batch] = reply.current
    assert [batch for batch, vote in votes.items() if vote] == ([] if register is None else [register])


def test_values_from_memory_and_store_together_fit_into_one_reply() -> None:
    values = [b"=%d" % number for number in range(3)]
    size = len(put(values[0]).header) + len(put(values[0]).sealed[0])
    replica = replica_that_settled(MemoryStore(), cache=RecordCache(1 << 20), reply_bytes=2 * size)
    replica.handle([*(put(value, number) for number, value in enumerate(values, 1)), notice(1, 2, 3)])
    for value in values:
        assert told(replica, get(value)) is not None
    digests = [get(value).digests[0] for value in values]
    three = messages.GetSettled(round_of(99), VIEW.id, ACME.id, [1] * 3, digests)
    two = messages.GetSettled(round_of(99), VIEW.id, ACME.id, [1] * 2, digests[:2])
    over, fits = replica.handle([three, two])
    assert isinstance(over, messages.Overflow)
    assert isinstance(fits, messages.Settled)


def test_a_restart_and_another_view_know_nothing() -> None:
    store = MemoryStore()
    replica = replica_that_settled(store, cache=RecordCache(1 << 20))
    replica.handle([put(VALUE), notice(1)])
    assert told(replica, get(VALUE)) is not None
    assert told(make_replica(store, "n1"), get(VALUE)) is None
    following = View(VIEW.number + 1, b"j" * 16, {**VIEW.disks, "n3": b"j" * 16})
    replica.handle([messages.ProposeView(round_of(1), VIEW.id, following)])
    assert replica.identity.view == following
    assert replica.reader.cache.get(sorted(key for key, _ in store.scan(layout.RECORD))) == [None]
    (reply,) = replica.handle([get(VALUE).sent_in(round_of(2), following.id)])
    assert reply.records == [None]


def test_a_comparison_in_another_view_shows_nothing() -> None:
    replica = make_replica(MemoryStore(), "n1")
    former = View(VIEW.number - 1, b"f" * 16, VIEW.disks)
    replica.settle(former.id, ALL, replica.sequence)
    assert not replica.settled.buckets_known


@pytest.mark.parametrize("mark_here", [True, False])
def test_an_active_disk_keeps_a_value_that_meets_a_conflict(mark_here: bool) -> None:
    """Two disks may have the value, and one of them may have answered with it alone, so it stays."""
    store = MemoryStore()
    replica = make_replica(store, "n1", NARROW)
    replica.handle([put(VALUE, 1, NARROW)])
    ((key, record),) = store.scan(layout.RECORD)
    theirs = records.CONFLICT_MARK if mark_here else put(OTHER, 2, NARROW).header + put(OTHER, 2, NARROW).sealed[0]
    assert replica.merge([key], [theirs]) == 0
    assert dict(store.scan(layout.RECORD)) == {key: record}
