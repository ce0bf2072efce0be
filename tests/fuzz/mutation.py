"""Turns bytes into other bytes, by several changes at a time: the changes that parsers most often do not expect."""

import struct
from collections.abc import Callable, Sequence
from random import Random

#: Edge values at which lengths, counts and offsets overflow.
_EDGES = (0, 1, -1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**63, 2**64 - 1)
_LENGTHS = (1, 1, 1, 2, 3, 4, 8, 16, 64, 300)
#: The most bytes that a mutation makes of a small input.
_MOST_BYTES = 1 << 16
_Change = Callable[[Random, bytearray], None]


def mutate(rng: Random, data: bytes, words: Sequence[bytes] = ()) -> bytes:
    """Makes one to a dozen changes, most often few. Sometimes inserts one of ``words``, which have a meaning to the parser."""
    changed = bytearray(data)
    for _ in range(min(12, 1 + int(rng.expovariate(0.6)))):
        if words and rng.random() < 0.35:
            _put_in(rng, changed, rng.choice(words))
        else:
            rng.choice(_CHANGES)(rng, changed)
    return bytes(changed)


def _span(rng: Random, data: bytearray) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice(_LENGTHS))


def _put_in(rng: Random, data: bytearray, word: bytes) -> None:
    start, end = _span(rng, data)
    data[start : end if rng.random() < 0.5 else start] = word


def flip(rng: Random, data: bytearray) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _overwrite(rng: Random, data: bytearray) -> None:
    start, end = _span(rng, data)
    data[start:end] = rng.randbytes(end - start)


def _insert(rng: Random, data: bytearray) -> None:
    start = rng.randrange(len(data) + 1)
    data[start:start] = rng.randbytes(rng.choice(_LENGTHS))


def _delete(rng: Random, data: bytearray) -> None:
    start, end = _span(rng, data)
    del data[start:end]


def _truncate(rng: Random, data: bytearray) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _repeat(rng: Random, data: bytearray) -> None:
    start, end = _span(rng, data)
    times = rng.choice((1, 1, 2, 5, 50, 1000))
    if (end - start) * times + len(data) <= _MOST_BYTES:
        data[end:end] = data[start:end] * times


def _move(rng: Random, data: bytearray) -> None:
    start, end = _span(rng, data)
    piece = data[start:end]
    del data[start:end]
    at = rng.randrange(len(data) + 1)
    data[at:at] = piece


def _number(rng: Random, data: bytearray) -> None:
    """Puts an integer of some width and byte order in place of as many bytes."""
    width, code = rng.choice(((1, "B"), (2, "H"), (4, "I"), (8, "Q")))
    if len(data) < width:
        return
    at = rng.randrange(len(data) - width + 1)
    data[at : at + width] = struct.pack(rng.choice("<>") + code, rng.choice(_EDGES) % (1 << 8 * width))


_CHANGES: tuple[_Change, ...] = (flip, flip, _overwrite, _insert, _delete, _truncate, _repeat, _move, _number)
