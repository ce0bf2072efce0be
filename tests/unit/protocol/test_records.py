"""Records and their merge."""

from hypothesis import given
from hypothesis import strategies as st

from quorumvault.model import Version
from quorumvault.protocol.records import CONFLICT_MARK, header, holds_value, is_record, merge, sealed_of, version_of

versions = st.builds(Version, st.integers(0, 2**64 - 1), st.integers(1, 3))
values = st.builds(lambda version, sealed: header(version) + sealed, versions, st.sampled_from([b"sealed a", b"sealed b"]))
any_record = values | st.just(CONFLICT_MARK)


@given(versions, st.binary(min_size=1))
def test_layout(version: Version, sealed: bytes) -> None:
    record = header(version) + sealed
    assert is_record(record)
    assert holds_value(record)
    assert version_of(record) == version
    assert sealed_of(record) == sealed


@given(versions, versions)
def test_bytes_order_as_versions_do(one: Version, other: Version) -> None:
    assert (header(one) < header(other)) == (one < other)


@given(any_record, any_record, any_record)
def test_merge_is_commutative_associative_and_idempotent(a: bytes, b: bytes, c: bytes) -> None:
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(a, a) == a


@given(values, values)
def test_merge_never_makes_another_value(a: bytes, b: bytes) -> None:
    """Proves: a conflict never overwrites."""
    merged = merge(a, b)
    if sealed_of(a) == sealed_of(b):
        assert merged == min(a, b)
    else:
        assert merged == CONFLICT_MARK


def test_what_is_no_record() -> None:
    for wrong in (b"", b"\x01", b"\x01v", header(Version(1, 1)), b"\x02v" + bytes(20), b"\x01c!", b"\x01x" + bytes(20)):
        assert not is_record(wrong)
