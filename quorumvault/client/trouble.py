"""What keeps a client waiting, for a display such as a progress bar. Pure."""

from typing import NamedTuple

from quorumvault.client.plan import Clock
from quorumvault.errors import Asked


class Trouble(NamedTuple):
    """The nodes that failed at their last try, with the outcome; and how many more seconds calls under way go on trying.

    ``seconds_left`` is None if no call under way has had a failed try.
    """

    nodes: tuple[Asked, ...]
    seconds_left: float | None


class Troubles:
    """Notes outcomes of tries. Threads may race here: each step changes one dictionary entry, and the result is for people."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._outcomes: dict[str, str] = {}
        #: The time until which each unfinished effort goes on, by effort.
        self._until: dict[object, float] = {}

    def failed(self, effort: object, until: float, node: str, outcome: str) -> None:
        """Notes a failed try, after which the effort tries again if there is time."""
        self._outcomes[node] = outcome
        self._until[effort] = until

    def answered(self, node: str) -> None:
        self._outcomes.pop(node, None)

    def over(self, effort: object) -> None:
        self._until.pop(effort, None)

    def now(self) -> Trouble:
        until = min(list(self._until.values()), default=None)
        left = None if until is None else max(until - self._clock(), 0.0)
        return Trouble(tuple(Asked(node, outcome) for node, outcome in list(self._outcomes.items())), left)
