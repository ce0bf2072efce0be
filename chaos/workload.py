"""The clients' requests during the faults: many owners, values that often coincide, and tokens old, new and of other owners.

Requests arrive at each node at a fixed mean rate, whether earlier ones were answered or not. Clients that waited for a silent
node would make the silence look short (Tene, "How NOT to Measure Latency", calls this coordinated omission). The seed determines
the requests. Their exact times, and which tokens clients know by then, depend on the machine.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from chaos.asking import REFUSED, Breach, Names, NodeClient, Told
from chaos.recorder import Recorder
from chaos.testbed.checkers import epoch_of
from chaos.testbed.history import Action, Outcome, Unsent

OWNERS = ("acme", "zeta", "mill", "bell")
#: Most calls are for the first owner: faults show where clients use the same values.
_OWNER_WEIGHTS = (8, 3, 2, 1)
#: Rotations are rare beside the operations that they fence: one in a few seconds.
_ACTION_WEIGHTS = {Action.TOKENIZE: 100, Action.DETOKENIZE: 90, Action.RETOKENIZE: 12, Action.EPOCH: 6, Action.ROTATE: 2}
#: The number of current values, and how many of them are replaced each second.
_VALUES, _FRESH_PER_SECOND = 64, 5
#: The share of writes that include a value of no other write.
_ONCE = 0.3
#: The most requests at once through one node. A node itself takes 64.
_CLIENTS = 48
#: The number of an owner's last tokens that count as recent.
_RECENT = 512
#: The number of values written without an answer that clients ask about repeatedly.
_DOUBTFUL = 48
_FIRST_EPOCH = 1


class Asked(NamedTuple):
    """One operation to ask for."""

    action: Action
    owner: str
    given: tuple[str, ...] = ()
    epoch: int = 0


@dataclass
class Known:
    """The answers that the clients of one owner have had so far. ``tokens`` has each name once, in order of first occurrence.

    ``doubtful``: values, each with its epoch, of writes that may have happened, perhaps in part, or that reportedly failed.
    """

    epoch: int = _FIRST_EPOCH
    tokens: dict[str, None] = field(default_factory=dict)
    every: list[str] = field(default_factory=list)
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=_RECENT))
    doubtful: deque[tuple[str, int]] = field(default_factory=lambda: deque(maxlen=_DOUBTFUL))

    def learn(self, epoch: int, tokens: Collection[str]) -> None:
        self.epoch = max(self.epoch, epoch)
        for token in tokens:
            if token not in self.tokens:
                self.tokens[token] = None
                self.every.append(token)
            self.recent.append(token)


def draw(rng: Random, known: Mapping[str, Known], seconds: float, names: Names) -> Asked:
    """Draws the request of the next client, ``seconds`` into the run."""
    (owner,) = rng.choices(OWNERS, _OWNER_WEIGHTS)
    (action,) = rng.choices([*_ACTION_WEIGHTS], [*_ACTION_WEIGHTS.values()])
    if action is Action.EPOCH:
        return Asked(action, owner)
    if action is Action.ROTATE:
        return Asked(action, owner, epoch=max(_FIRST_EPOCH, known[owner].epoch + rng.choice((0, 0, 0, 0, 0, 0, -1, 1))))
    if action is Action.TOKENIZE:
        values = [_value(rng, owner, seconds) for _ in range(_size(rng))]
        return Asked(action, owner, (*values, _once(rng)) if rng.random() < _ONCE else tuple(values))
    return Asked(action, owner, tuple(_token(rng, known, owner, seconds, names) for _ in range(max(1, _size(rng)))))


def _size(rng: Random) -> int:
    """Draws the size of a batch. An empty batch reads the epoch, and must respect the fence like any other."""
    dice = rng.random()
    if dice < 0.55:
        return 1
    return 0 if dice < 0.60 else rng.randint(2, 10) if dice < 0.85 else rng.randint(11, 60)


def _once(rng: Random) -> str:
    """Draws a value that no other request stores."""
    return f"=once-{rng.getrandbits(64):x}"


def _value(rng: Random, owner: str, seconds: float) -> str:
    """Draws a current value, which other clients use too. Some values are the same for all owners, and some are numbers."""
    number = int(seconds * _FRESH_PER_SECOND) + rng.randrange(_VALUES)
    if number % 5 == 0:
        return f"=#{number}"
    return f"={number}" if number % 2 else f"={owner}-{number}"


def _token(rng: Random, known: Mapping[str, Known], owner: str, seconds: float, names: Names) -> str:
    """Draws a token: mostly one that an answer showed to this owner or another; else one not shown yet, one whose write had no
    answer, or one of a value that was never stored."""
    dice = rng.random()
    mine = known[owner]
    if dice < 0.03:
        return names.spelled(owner, rng.randint(_FIRST_EPOCH, mine.epoch + 1), _once(rng))
    if dice < 0.15 and mine.doubtful:
        value, epoch = rng.choice(mine.doubtful)
        return names.spelled(owner, epoch, value)
    of = known[rng.choice(OWNERS)] if dice > 0.93 else mine
    if dice < 0.25 or not of.every:
        return names.spelled(owner, mine.epoch, _value(rng, owner, seconds))
    return rng.choice(of.recent) if rng.random() < 0.75 else rng.choice(of.every)


def misspelled(asked: Asked, told: Told, names: Names) -> str | None:
    """Says in words which token of an answer is not the token of its value by specification; None if all are right.

    So a single answer can reveal a wrong token or value. The checkers know only what several answers show together.
    """
    for given, answer in zip(asked.given, told.answers, strict=True):
        if answer is None or not answer.startswith(("=", "qv_")):
            continue
        token = given if asked.action is Action.DETOKENIZE else answer
        match asked.action:
            case Action.TOKENIZE:
                value: str | None = given
            case Action.DETOKENIZE:
                value = answer
            case _:
                value = names.behind(asked.owner, given)
        if value is None:
            return f"{given} is moved to {answer}, and no value of {asked.owner} is known to have it"
        right = names.spelled(asked.owner, epoch_of(token), value)
        if token != right:
            return f"{value} of {asked.owner} is said to have {token}, and has {right}"
    return None


class Workload:
    """Sends requests, records them, and learns from answers. Implements Traffic. ``rate``: requests a second to each node."""

    def __init__(self, clients: Mapping[str, NodeClient], names: Names, recorder: Recorder, seed: int, rate: float) -> None:
        self.known = {owner: Known() for owner in OWNERS}
        #: Answers outside the contract: the operation, and what was wrong.
        self.breaches: list[tuple[int, str]] = []
        self.counts = dict.fromkeys(Outcome, 0)
        self._clients = clients
        self._names = names
        self._recorder = recorder
        self._rng = Random(seed)
        self._rate = rate
        self._sending = {node: asyncio.Event() for node in clients}
        self._free = {node: list(range(_CLIENTS)) for node in clients}
        self._first_client = {node: place * _CLIENTS for place, node in enumerate(clients)}

    def values(self, owner: str, count: int) -> tuple[str, ...]:
        """Returns current values, as the clients of this owner use them."""
        return tuple(_value(self._rng, owner, self._recorder.now) for _ in range(count))

    def under_way(self, node: str) -> int:
        return _CLIENTS - len(self._free[node])

    async def next_request(self, node: str) -> None:
        await self._sending[node].wait()

    async def run(self, going_on: Callable[[], bool]) -> None:
        """Sends requests while ``going_on()``; then waits for those that are under way."""
        async with asyncio.TaskGroup() as tasks:
            for node in self._clients:
                tasks.create_task(self._arrivals(node, tasks, going_on), name=f"arrivals at {node}")

    async def ask(self, asked: Asked, node: str, *, client: int = 0, final: bool = False) -> Told:
        """Performs one operation, and records it."""
        action, owner, given, epoch = asked
        op = self._recorder.invoke(action, owner, node, given, epoch, client=client, final=final)
        self._sending[node].set()  # a waiting fault goes on while the request is under way
        self._sending[node].clear()
        try:
            told = await self._clients[node].ask(action, owner, given, epoch)
        except Breach as breach:
            self.breaches.append((op, f"operation {op}, {asked.action} through {node}: {breach}"))
            told = Told(Outcome.UNKNOWN, why="breach")
        if told.outcome is Outcome.OK and (wrong := misspelled(asked, told, self._names)) is not None:
            self.breaches.append((op, f"operation {op}, {asked.action} through {node}: {wrong}"))
        self._recorder.complete(op, *told)
        self.counts[told.outcome] += 1
        known = self.known[owner]
        if told.outcome is Outcome.OK and action is not Action.DETOKENIZE:
            known.learn(told.epoch, [answer for answer in told.answers if answer is not None and answer.startswith("qv_")])
        elif action is Action.TOKENIZE and told.why != REFUSED:
            known.doubtful += [(value, known.epoch) for value in given[-1:]]
        return told

    async def _arrivals(self, node: str, tasks: asyncio.TaskGroup, going_on: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while going_on():
            due += self._rng.uniform(0.5, 1.5) / self._rate
            await asyncio.sleep(due - loop.time())
            if self._free[node]:
                tasks.create_task(self._one(node, self._free[node].pop()))
            else:
                self._recorder.write(Unsent(self._recorder.now, node))

    async def _one(self, node: str, client: int) -> None:
        try:
            asked = draw(self._rng, self.known, self._recorder.now, self._names)
            await self.ask(asked, node, client=self._first_client[node] + client)
        finally:
            self._free[node].append(client)
