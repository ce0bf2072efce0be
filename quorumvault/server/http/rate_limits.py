"""Rate limits of API keys: requests a second, values a second, values a day. A key beyond its rate gets 429 rate-limited.

Each rate is a token bucket in memory: a node counts only its own requests, and starts with full buckets.

A request may have more values than one second's worth; otherwise a key with 1,000 a second could send no batch of 10,000. Such a
request waits until the bucket is full, and leaves it in debt: nothing more passes until the debt is paid off, so the rate holds
on average. A request with more than a day's worth never passes (422).

A refused request pays nothing. A request that passes has paid, whatever its outcome.
"""

import math
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from quorumvault.config.api_keys import ApiKey
from quorumvault.errors import RateLimited, TooManyItems

#: A wait shorter than so many seconds counts as none: rounding can leave it when a wait is over.
_MOMENT: Final = 1e-6
_DAY: Final = 86_400


class Bucket:
    """Fills at ``rate`` a second up to ``most``, and begins full. Both may differ between calls: the key file is reloaded."""

    __slots__ = ("_at", "_level")

    def __init__(self, most: float, now: float) -> None:
        self._level = most
        self._at = now

    def wait(self, amount: float, rate: float, most: float, now: float) -> float:
        """Return the seconds until ``amount`` can be taken, 0 if none. A full bucket gives even more than ``most``."""
        self._level = min(most, self._level + (now - self._at) * rate)
        self._at = now
        seconds = (min(amount, most) - self._level) / rate
        return seconds if seconds > _MOMENT else 0.0

    def take(self, amount: float) -> None:
        """Take an amount, after ``wait`` returned 0. A level below 0 is debt."""
        self._level -= amount


class _Claim(NamedTuple):
    """A claim of ``amount`` on a bucket with ``rate`` and ``most``. ``allowed`` states the rate in words."""

    allowed: str
    amount: int
    rate: float
    most: float


class Allowances:
    """The buckets of all keys that have rates: no more of them than keys, since only a key in force gets this far.

    ``clock`` is monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def spend_request(self, key: ApiKey) -> None:
        """Take one request. Raises RateLimited, with the seconds to wait."""
        rate = key.rates.requests_per_second
        if rate is not None:
            self._spend(key, {"requests/s": _Claim(f"make {rate:.15g} requests a second", 1, rate, max(1.0, rate))})

    def spend_values(self, key: ApiKey, values: int) -> None:
        """Take a number of values. Raises RateLimited, with the seconds to wait, and TooManyItems for more than a day's worth,
        for which no wait would help."""
        second, day = key.rates.values_per_second, key.rates.values_per_day
        if second is None and day is None:
            return
        claims: dict[str, _Claim] = {}
        if second is not None:
            claims["values/s"] = _Claim(f"ask about {second:.15g} values a second", values, second, second)
        if day is not None:
            claims["values/d"] = _Claim(f"ask about {day:.15g} values a day", values, day / _DAY, day)
            if values > day:
                raise TooManyItems(f"key {key.id} may {claims['values/d'].allowed}, and these are {values}: send fewer at once")
        if values:
            self._spend(key, claims)

    def _spend(self, key: ApiKey, claims: Mapping[str, _Claim]) -> None:
        """Take all claims, or none and raise RateLimited."""
        now = self._clock()
        wait, allowed = 0.0, ""
        for unit, claim in claims.items():
            bucket = self._buckets.setdefault((key.id, unit), Bucket(claim.most, now))
            wait, allowed = max((wait, allowed), (bucket.wait(claim.amount, claim.rate, claim.most, now), claim.allowed))
        if wait:
            raise RateLimited(f"key {key.id} may {allowed}; wait {math.ceil(wait)} s", retry_after=math.ceil(wait))
        for unit, claim in claims.items():
            self._buckets[key.id, unit].take(claim.amount)
