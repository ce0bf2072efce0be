"""Requests per second of one API key: a token bucket that holds one second's worth, and at least one request."""

from __future__ import annotations

import math
from collections.abc import Callable

from quorumvault.errors import RateLimited
from quorumvault.keyfile import ApiKey


class Rates:
    """The buckets of all keys that have a rate: no more of them than keys, since only a key in force gets this far.

    ``clock`` is monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def spend(self, key: ApiKey) -> None:
        """Take one request's worth. Raises RateLimited, with the seconds until there is one again."""
        if key.rate is None:
            return
        now = self._clock()
        bucket = self._buckets.get(key.id)
        if bucket is None:
            bucket = self._buckets[key.id] = _Bucket(max(1.0, key.rate), now)
        bucket.refill(key.rate, now)
        if bucket.level < 1:
            wait = math.ceil((1 - bucket.level) / key.rate)
            raise RateLimited(f"key {key.id} may make {key.rate:g} requests a second", retry_after=wait)
        bucket.level -= 1


class _Bucket:
    __slots__ = ("at", "level")

    def __init__(self, level: float, at: float) -> None:
        self.level = level
        self.at = at

    def refill(self, rate: float, now: float) -> None:
        self.level = min(max(1.0, rate), self.level + (now - self.at) * rate)
        self.at = now
