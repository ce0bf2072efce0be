"""The union of ordered stores, read piece by piece, equals one dictionary into which all of them are put."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.server.backup.union import Union

keys = st.binary(min_size=1, max_size=2)
stores = st.lists(st.dictionaries(keys, st.binary(max_size=1), max_size=40), min_size=1, max_size=3)


def larger(key: bytes, one: bytes, other: bytes) -> bytes:
    return max(one, other)


def cut(store: dict[bytes, bytes], data: st.DataObject, sizes: st.SearchStrategy[int]) -> list[list[tuple[bytes, bytes]]]:
    """Cut the store into pieces, of which only the last may be empty."""
    pairs = sorted(store.items())
    pieces: list[list[tuple[bytes, bytes]]] = []
    while pairs:
        size = data.draw(sizes)
        pieces.append(pairs[:size])
        pairs = pairs[size:]
    ends_empty = not pieces or data.draw(st.booleans())
    return [*pieces, []] if ends_empty else pieces


@given(stores, st.data())
def test_pieces_of_any_size_make_what_the_stores_hold_together_in_the_order_of_keys(
    held: list[dict[bytes, bytes]], data: st.DataObject
) -> None:
    expected: dict[bytes, bytes] = {}
    for store in held:
        for key, value in store.items():
            expected[key] = max(expected.get(key, b""), value)
    pieces = [cut(store, data, st.integers(1, 5)) for store in held]
    union = Union(len(held), larger)
    given_out: list[tuple[bytes, bytes]] = []
    while not union.ended:
        for source in union.wanted():
            piece = pieces[source].pop(0)
            assert all(key > union.after(source) for key, _ in piece)
            union.add(source, [key for key, _ in piece], [value for _, value in piece], last=not pieces[source])
        ready = union.ready()
        assert len(ready) <= 5 * len(held)
        given_out += ready
    assert (given_out, pieces) == (sorted(expected.items()), [[]] * len(held))


def test_nothing_is_given_out_before_every_store_has_been_read_so_far() -> None:
    union = Union(2, larger)
    union.add(0, [b"a", b"c"], [b"1", b"1"], last=False)
    assert (union.ready(), union.wanted()) == ([], [1])
    union.add(1, [b"b"], [b"2"], last=False)
    assert (union.ready(), union.wanted()) == ([(b"a", b"1"), (b"b", b"2")], [1])
    union.add(1, [b"c"], [b"3"], last=True)
    assert union.ready() == [(b"c", b"3")]
    assert not union.ended
    assert (union.wanted(), union.after(0)) == ([0], b"c")
    union.add(0, [], [], last=True)
    assert union.ready() == []
    assert union.ended


def test_what_several_hold_is_joined_in_the_order_of_sources() -> None:
    union = Union(3, lambda key, one, other: key + one + other)
    for source, value in enumerate([b"1", b"2", b"3"]):
        union.add(source, [b"k"], [value], last=True)
    assert union.ready() == [(b"k", b"kk123")]


@pytest.mark.parametrize("piece", [[b"b", b"a"], [b"b", b"b"], [b""]])
def test_a_piece_that_is_out_of_order_is_none(piece: list[bytes]) -> None:
    with pytest.raises(ValueError, match="out of order"):
        Union(1, larger).add(0, piece, [b""] * len(piece), last=True)


def test_a_piece_begins_behind_the_one_before() -> None:
    union = Union(1, larger)
    union.add(0, [b"b"], [b""], last=False)
    with pytest.raises(ValueError, match="not wanted"):
        union.add(0, [b"c"], [b""], last=False)
    union.ready()
    with pytest.raises(ValueError, match="out of order"):
        union.add(0, [b"b"], [b""], last=True)
