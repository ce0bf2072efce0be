"""What keeps a client waiting, for a display such as a progress bar. Pure."""

from typing import NamedTuple

from quorumvault.client.plan import Clock
from quorumvault.errors import Asked


class Trouble(NamedTuple):
    """The nodes whose last answer was none, with what came of it; and how many more seconds calls under way go on trying.

    ``seconds_left`` is None if no call waits for more than its first answer: another node was there to ask.
    """

    nodes: tuple[Asked, ...]
    seconds_left: float | None


class Troubles:
    """Notes outcomes of tries. Threads may race here: each step is one change of a dictionary, and what is read is for people."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._outcomes: dict[str, str] = {}
        #: By the effort that goes on, until when it does.
        self._until: dict[object, float] = {}

    def failed(self, effort: object, until: float, node: str, outcome: str) -> None:
        """A try has to be followed by another one, if there is time for it."""
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
