"""Bits that flip in the tables of a store: each byte of each of them is as likely as any other to be hit."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from chaos.testbed.host import flip_bits


class Flip(NamedTuple):
    """One bit: the number of its file among all, the offset of its byte, and the bit in it."""

    file: int
    offset: int
    bit: int


def choose(sizes: Sequence[int], count: int, rng: Random) -> list[Flip]:
    """Chooses ``count`` different bits in files of these sizes in bytes. Raises ValueError if there are fewer."""
    ends = list(itertools.accumulate(sizes))
    flips = []
    for position in sorted(rng.sample(range(8 * sum(sizes)), count)):
        at, bit = divmod(position, 8)
        file = bisect_right(ends, at)
        flips.append(Flip(file, at - (ends[file] - sizes[file]), bit))
    return flips


def flip_tables(store: Path, count: int, rng: Random) -> int:
    """Flips so many bits in the tables of a store whose node is down; answers in how many tables. ValueError if none."""
    tables = sorted(store.glob("*.ldb"))
    flips = choose([path.stat().st_size for path in tables], count, rng)
    for number, of_file in itertools.groupby(flips, lambda flip: flip.file):
        flip_bits(tables[number], [(flip.offset, 1 << flip.bit) for flip in of_file])
    return len({flip.file for flip in flips})
