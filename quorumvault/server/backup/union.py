"""Merges several stores, each given as pieces in the order of keys. Pure, with at most one piece of each store in memory.

A pair can be emitted once every store has been read up to the pair's key, because no smaller key can follow.
"""

from bisect import bisect_right
from collections.abc import Callable
from itertools import pairwise

#: Called with (key, one value, the other value). Returns the value that the two become.
Join = Callable[[bytes, bytes, bytes], bytes]


class _Stream:
    """The pairs of one store, from ``place`` on, that were read but not emitted yet. ``after`` is the last key read."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.values: list[bytes] = []
        self.place = 0
        self.after = b""
        self.last = False

    @property
    def empty(self) -> bool:
        return self.place == len(self.keys)

    def take(self, bound: bytes | None) -> list[tuple[bytes, bytes]]:
        """The pairs up to and including the key ``bound``; None: all."""
        end = len(self.keys) if bound is None else bisect_right(self.keys, bound, self.place)
        taken = list(zip(self.keys[self.place : end], self.values[self.place : end], strict=True))
        self.place = end
        return taken


class Union:
    """Merges ``sources`` stores, numbered from 0. Values that several have under one key are joined, in the order of sources."""

    def __init__(self, sources: int, join: Join) -> None:
        self._streams = [_Stream() for _ in range(sources)]
        self._join = join

    def wanted(self) -> list[int]:
        """Return the sources from which a piece must be added before ``ready`` can emit more."""
        return [number for number, stream in enumerate(self._streams) if stream.empty and not stream.last]

    def join_in(self, after: bytes) -> int:
        """Add one more store, which is needed only after this key. Returns its number."""
        stream = _Stream()
        stream.after = after
        self._streams.append(stream)
        return len(self._streams) - 1

    def after(self, source: int) -> bytes:
        """The key after which the source's next piece begins."""
        return self._streams[source].after

    @property
    def ended(self) -> bool:
        """True once all pairs were emitted."""
        return all(stream.empty and stream.last for stream in self._streams)

    def add(self, source: int, keys: list[bytes], values: list[bytes], *, last: bool, until: bytes = b"") -> None:
        """The next piece of a source that was wanted, which was read up to the key ``until``, or its last one.

        ``last``: nothing follows. ValueError if it is not what comes next.
        """
        stream = self._streams[source]
        if not stream.empty or stream.last:
            raise ValueError("a piece that was not wanted")
        if any(later <= earlier for earlier, later in pairwise([stream.after, *keys])):
            raise ValueError("a piece that is out of order")
        stream.keys, stream.values, stream.place, stream.last = keys, values, 0, last
        stream.after = max(until, keys[-1] if keys else stream.after)

    def ready(self) -> list[tuple[bytes, bytes]]:
        """The pairs that no later piece can change, in the order of keys. Returns none while a source is wanted."""
        if self.wanted():
            return []
        bound = min((stream.after for stream in self._streams if not stream.last), default=None)
        first, *others = (stream.take(bound) for stream in self._streams)
        joined = dict(first)
        for pairs in others:
            for key, value in pairs:
                known = joined.get(key)
                joined[key] = value if known is None or known == value else self._join(key, known, value)
        # Runs that are in order each: merging those is what this sort does best.
        return sorted(joined.items())
