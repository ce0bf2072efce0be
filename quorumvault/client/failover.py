"""Chooses the next node to ask and keeps the retry budget. All calls of one client share this state, from any thread.

Requests rotate over the nodes, so that each coordinates its share. A node that cannot be reached is in doubt: for a while the
client asks it only after the others, then with one call at a time until the node answers (a circuit breaker, half open). The
client asks no node before the time in its ``Retry-After``. Threads may race here: single reads and writes are atomic, and the
worst result is a request to the second-best node, or one extra retry.
"""

import itertools
import math
from collections.abc import Container, Sequence

from quorumvault.client.policy import ClientPolicy


class Nodes:
    """The nodes' URLs, and what the client has learnt about the nodes."""

    def __init__(self, urls: Sequence[str], policy: ClientPolicy, first: int = 0) -> None:
        self.urls = tuple(urls)
        self._set_back_for = policy.set_back
        self._turns = itertools.count(first)
        #: The time until which a node in doubt is asked last; 0 for a node that is not in doubt.
        self._back_until = dict.fromkeys(self.urls, 0.0)
        self._not_before = dict.fromkeys(self.urls, 0.0)

    def choose(self, now: float, tried: Container[str]) -> str | None:
        """Returns the next node that was not tried and may be asked now, nodes in doubt last; None if there is none."""
        turn = next(self._turns) % len(self.urls)
        ready = [url for url in self.urls[turn:] + self.urls[:turn] if url not in tried and self._not_before[url] <= now]
        url = next((url for url in ready if self._back_until[url] <= now), ready[0] if ready else None)
        if url is not None and self._back_until[url]:
            self.set_back(url, now)  # this call finds out for all others
        return url

    def others_answer(self, url: str) -> bool:
        """Returns whether a node other than this one is not in doubt."""
        return any(not until for other, until in self._back_until.items() if other != url)

    def earliest(self) -> float:
        """Returns the time from which the first node may be asked again."""
        return min(self._not_before.values())

    def set_back(self, url: str, now: float) -> None:
        self._back_until[url] = now + self._set_back_for

    def answered(self, url: str) -> None:
        self._back_until[url] = 0.0

    def defer(self, url: str, until: float) -> None:
        """Asks the node no more until that time, as the node's Retry-After wants."""
        self._not_before[url] = until

    def defer_all(self, until: float) -> None:
        for url in self.urls:
            self._not_before[url] = until


class RetryBudget:
    """Retries saved up, refilled by time and by requests (as in Finagle and in gRPC's retry throttling)."""

    def __init__(self, policy: ClientPolicy, now: float) -> None:
        self._policy = policy
        self._saved = policy.retries_saved
        self._counted_at = now

    def earn(self) -> None:
        """Notes that a request has begun."""
        self._saved = min(self._saved + self._policy.retries_per_request, self._policy.retries_saved)

    def wait(self, now: float) -> float:
        """Returns the seconds until one more try is allowed; 0 if one is allowed now."""
        refilled = self._saved + (now - self._counted_at) * self._policy.retries_per_second
        self._saved, self._counted_at = min(refilled, self._policy.retries_saved), now
        if self._saved >= 1:
            return 0.0
        return (1 - self._saved) / self._policy.retries_per_second if self._policy.retries_per_second else math.inf

    def spend(self) -> None:
        """Takes one try out of the budget."""
        self._saved -= 1
