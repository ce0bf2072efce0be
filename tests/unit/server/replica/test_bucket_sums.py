"""Fingerprints of buckets match what the buckets hold, whatever was written and in whatever order."""

import itertools
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorumvault.model import Owner, Version
from quorumvault.protocol import records
from quorumvault.protocol.buckets import BUCKETS, GROUP_SIZE, GROUPS, between, bucket_of, differing, ranges
from quorumvault.protocol.records import fingerprint, record_hash
from quorumvault.server.replica.bucket_sums import BucketSums, encode_sums, total
from quorumvault.server.storage import layout

OWNERS = [Owner("clinic").id, Owner("registry").id]

#: Few buckets, so that several records are in one.
digests = st.builds(
    lambda bucket, rest: bucket.to_bytes(2, "big") + rest,
    st.sampled_from([0, 1, 255, 256, 65535]),
    st.binary(min_size=18, max_size=18),
)
keys = st.builds(
    lambda owner, epoch, digest: layout.record_keys(owner, [epoch], [digest])[0],
    st.sampled_from(OWNERS),
    st.integers(1, 3),
    digests,
)
versions = st.builds(Version, st.integers(0, 2**64 - 1), st.integers(1, 3))
sealed = st.binary(min_size=32, max_size=48)
values = st.builds(lambda version, sealed: records.header(version) + sealed, versions, sealed)
contents = st.dictionaries(keys, values | st.just(records.CONFLICT_MARK), max_size=12)


def sums_of(content: dict[bytes, bytes]) -> list[int]:
    by_bucket: dict[int, list[tuple[bytes, bytes]]] = {}
    for key, record in content.items():
        by_bucket.setdefault(layout.bucket_of(key), []).append((key, record))
    return [total(by_bucket.get(bucket, ())) for bucket in range(BUCKETS)]


def differ(sums: BucketSums, expected: Sequence[int]) -> list[int]:
    """The buckets whose sums differ: a failed test prints these few, and not the sums of all buckets."""
    return [bucket for bucket in range(BUCKETS) if sums[bucket] != expected[bucket]]


def counted() -> BucketSums:
    sums = BucketSums()
    for bucket in range(BUCKETS):
        sums.learn(bucket, 0, 0)
    return sums


@pytest.mark.slow
@settings(max_examples=25)
@given(st.lists(contents, max_size=6))
def test_sums_that_are_kept_up_are_those_that_a_scan_comes_to(batches: Sequence[dict[bytes, bytes]]) -> None:
    sums, content = counted(), dict[bytes, bytes]()
    for batch in batches:
        sums.of_groups()  # a result from before a write is not returned after it
        replaced = {key: content[key] for key in batch if key in content}
        sums.wrote({**batch, layout.SEQUENCE_KEY: b"12345678", layout.register_key(OWNERS[0]): b"\x01\0\0\0\1"}, replaced)
        content |= batch
    expected = sums_of(content)
    assert not differ(sums, expected)
    assert sums.records == len(content)
    assert sums.of_groups() == [sum(expected[at : at + GROUP_SIZE]) % 2**64 for at in range(0, BUCKETS, GROUP_SIZE)]
    assert sums.of_group(255) == expected[-GROUP_SIZE:]


def test_the_sums_of_groups_follow_what_is_counted_and_what_cannot_be_read() -> None:
    sums = counted()
    assert not any(sums.of_groups())
    sums.learn(GROUP_SIZE, 7, 1)
    assert sums.of_groups()[:3] == [0, 7, 0]
    sums.forget(GROUP_SIZE)
    assert not any(sums.of_groups())


@pytest.mark.slow
@settings(max_examples=25)
@given(contents, contents, st.sets(st.sampled_from([0, 1, 255, 256, 65535])))
def test_buckets_that_are_scanned_between_writes_miss_none(
    before: dict[bytes, bytes], after: dict[bytes, bytes], scanned: set[int]
) -> None:
    """Some are counted before the second batch, some after it."""
    sums = BucketSums()
    sums.wrote(before, {})
    expected, held = sums_of(before), Counter(map(layout.bucket_of, before))
    for bucket in scanned:
        sums.learn(bucket, expected[bucket], held[bucket])
    sums.wrote(after, {key: before[key] for key in after if key in before})
    expected, held = sums_of(before | after), Counter(map(layout.bucket_of, before | after))
    assert {bucket: sums[bucket] for bucket in scanned} == {bucket: expected[bucket] for bucket in scanned}
    for bucket in set(range(BUCKETS)) - scanned:
        assert sums[bucket] == 0
        sums.learn(bucket, expected[bucket], held[bucket])
    assert not differ(sums, expected)
    assert sums.records == len(before | after)


@given(keys, versions, versions, sealed)
def test_the_version_is_part_of_a_fingerprint(key: bytes, one: Version, other: Version, sealed: bytes) -> None:
    """All bits of the version count if the tag is odd. Tags are random, so half of them are odd."""
    odd = sealed[:7] + bytes([sealed[7] | 1]) + sealed[8:]
    same = fingerprint(key, records.header(one) + odd) == fingerprint(key, records.header(other) + odd)
    # The product keeps 64 of a version's 72 bits: clocks that differ by 2^55 or more may collide.
    assert same == ((one.clock << 9 | one.node << 1) % 2**64 == (other.clock << 9 | other.node << 1) % 2**64)


def test_a_record_or_mark_counts_for_the_key_that_it_is_under_and_swapped_versions_change_the_sum() -> None:
    """A sum of plain versions and tags would not detect that two records have swapped their versions."""
    one, other = layout.record_keys(OWNERS[0], [1, 1], [bytes(19) + b"\1", bytes(19) + b"\2"])
    assert fingerprint(one, records.CONFLICT_MARK) != fingerprint(other, records.CONFLICT_MARK)
    early, late = records.header(Version(5, 1)), records.header(Version(9, 2))
    tags = bytes(range(1, 33)), bytes(range(101, 133))
    assert total([(one, early + tags[0]), (other, late + tags[1])]) != total([(one, late + tags[0]), (other, early + tags[1])])


@given(values, st.integers(0))
def test_a_listing_shows_every_bit(record: bytes, at: int) -> None:
    at %= 8 * len(record)
    flipped = bytearray(record)
    flipped[at // 8] ^= 1 << at % 8
    assert record_hash(bytes(flipped)) != record_hash(record)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20), st.sets(st.integers(0, 19)))
def test_sums_that_differ_are_found(sums: list[int], changed: set[int]) -> None:
    other = [value ^ 1 if at in changed else value for at, value in enumerate(sums)]
    assert differing(encode_sums(sums), encode_sums(other)) == sorted(at for at in changed if at < len(sums))


@pytest.mark.parametrize(("one", "other"), [(bytes(8), bytes(16)), (bytes(7), bytes(7)), (b"", bytes(8))])
def test_sums_of_other_buckets_are_not_compared(one: bytes, other: bytes) -> None:
    with pytest.raises(ValueError, match="not the sums of the same buckets"):
        differing(one, other)


@given(st.sets(st.integers(0, 40)))
def test_ranges_are_the_buckets_and_do_not_touch(buckets: set[int]) -> None:
    found = list(ranges(sorted(buckets)))
    assert [bucket for first, end in found for bucket in range(first, end)] == sorted(buckets)
    assert all(end < first for (_, end), (first, _) in itertools.pairwise(found))


@given(st.integers(0, 20), st.integers(0, 40), st.sets(st.integers(0, 40)))
def test_what_is_left_between_indices_is_all_but_these(first: int, end: int, indices: set[int]) -> None:
    inside = sorted(index for index in indices if first <= index < end)
    found = list(between(first, inside, end))
    assert [each for some in found for each in some] == [each for each in range(first, end) if each not in indices]
    assert all(found)


def test_a_place_has_its_bucket_in_front_and_comes_apart_again() -> None:
    digest = bytes(range(100, 120))
    (key,) = layout.record_keys(OWNERS[1], [7], [digest])
    assert layout.parse_place(key[1:]) == (OWNERS[1], 7, digest)
    assert bucket_of(key[1:]) == layout.bucket_of(key) == 100 << 8 | 101
    assert key.startswith(layout.bucket_prefix(100 << 8 | 101))
    assert GROUPS * GROUP_SIZE == BUCKETS
