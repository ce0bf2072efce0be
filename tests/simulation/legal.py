"""A vault that is right because it is tiny: one store, no nodes. What its clients see is legal in every interleaving of calls.

Each operation runs in steps, and other operations run between these steps. A client may give up on an operation before a step or
after any, and then the rest runs later, or never. Or the operation is refused before its first step. ``rng`` draws every choice.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from random import Random

from chaos.testbed.checkers import COLLISION, EPOCH_AHEAD, NOT_FOUND, UNAVAILABLE
from chaos.testbed.history import KEY_ACTIONS, Action, Complete, History, Invoke, Outcome

OWNERS = ("acme", "zeta")
VALUES = ("=a", "=b", "=c", "=#1")
_ACTIONS = tuple(action for action in Action if action not in KEY_ACTIONS)
#: The number of tokens that each epoch has, when tokens are cut short.
_NARROW = 3
_OPERATIONS, _AT_ONCE = 24, 5

#: One step for each place where the operation stops; it returns what the client is told at the end.
Steps = Generator[None, None, Complete]


@dataclass
class Vault:
    """``stored`` has the value of each owner's token, None where two values met. Wrong vaults override the methods."""

    narrow: bool
    rng: Random
    epochs: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OWNERS, 1))
    stored: dict[tuple[str, str], str | None] = field(default_factory=dict)

    def token(self, owner: str, epoch: int, value: str) -> str:
        number = VALUES.index(value)
        return f"qv_{epoch}_{(number + epoch) % _NARROW}" if self.narrow else f"qv_{epoch}_{owner}{number}"

    def write(self, owner: str, epoch: int, value: str) -> str | None:
        """Returns the token, if it now stands for this value. When two values meet, the token is spoiled, or the first stays."""
        key = owner, self.token(owner, epoch, value)
        there = self.stored.setdefault(key, value)
        if there != value and self.rng.random() < 0.3:
            self.stored[key] = None
        return key[1] if self.stored[key] == value else None

    def read(self, owner: str, token: str) -> str:
        if self.rng.random() < 0.05:
            return UNAVAILABLE
        return self.stored.get((owner, token), NOT_FOUND) or COLLISION

    def rotate(self, owner: str, epoch: int) -> int:
        """Returns the active epoch afterwards; a rotation from a future epoch changes nothing."""
        if self.epochs[owner] == epoch:
            self.epochs[owner] += 1
        return self.epochs[owner]


def steps_of(vault: Vault, asked: Invoke) -> Steps:
    owner, answers = asked.owner, list[str | None]()
    epoch = vault.epochs[owner]
    yield
    match asked.action:
        case Action.EPOCH:
            epoch = vault.epochs[owner]
            yield
        case Action.ROTATE:
            epoch = vault.rotate(owner, asked.epoch)
            yield
            if epoch < asked.epoch:
                return Complete(asked.op, Outcome.FAIL, (), epoch, why=EPOCH_AHEAD)
        case Action.TOKENIZE:
            for value in asked.given:
                answers.append(vault.write(owner, epoch, value))
                yield
        case Action.DETOKENIZE:
            for token in asked.given:
                answers.append(vault.read(owner, token))
                yield
            epoch = 0
        case Action.RETOKENIZE:
            found = []
            for token in asked.given:
                found.append(vault.read(owner, token))
                yield
            epoch = vault.epochs[owner]
            yield
            for value in found:
                answers.append(vault.write(owner, epoch, value) or COLLISION if value.startswith("=") else value)
                yield
    return Complete(asked.op, Outcome.OK, tuple(answers), epoch)


@dataclass
class Clients:
    """Clients that ask, and record what they are told."""

    _vault: Vault
    _rng: Random
    events: list[Invoke | Complete] = field(default_factory=list)
    #: The remaining steps of each operation, and the operations that a client still waits for.
    _under_way: dict[int, Steps] = field(default_factory=dict)
    _waiting: set[int] = field(default_factory=set)
    _next: int = 0

    def work(self) -> None:
        """Runs until no client waits. An operation that nobody waits for may stay unfinished."""
        while self._next < _OPERATIONS or self._waiting:
            if self._next < _OPERATIONS and ((len(self._waiting) < _AT_ONCE and self._rng.random() < 0.3) or not self._under_way):
                self._ask(self._draw())
            elif self._under_way:
                self._go_on(self._rng.choice(list(self._under_way)))

    def read_everything(self) -> None:
        """Reads each possible token as each owner, with nothing under way."""
        vault = self._vault
        last = max(vault.epochs.values())
        tokens = {vault.token(owner, epoch, value) for owner in OWNERS for epoch in range(1, last + 1) for value in VALUES}
        for owner in OWNERS:
            for token in sorted(tokens):
                answer = vault.stored.get((owner, token), NOT_FOUND) or COLLISION
                asked = self._invoke(Action.DETOKENIZE, owner, (token,), final=True)
                self.events.append(Complete(asked.op, Outcome.OK, (answer,)))

    def _invoke(self, action: Action, owner: str, given: tuple[str, ...] = (), epoch: int = 0, *, final: bool = False) -> Invoke:
        asked = Invoke(self._next, action, owner, "n1", given, epoch, final=final)
        self._next += 1
        self.events.append(asked)
        return asked

    def _draw(self) -> Invoke:
        rng, vault = self._rng, self._vault
        action, owner = rng.choice([*_ACTIONS, Action.TOKENIZE, Action.RETOKENIZE]), rng.choice(OWNERS)
        epoch = max(1, vault.epochs[owner] + rng.choice((0, 0, 0, -1, 1)))
        values = tuple(rng.choice(VALUES) for _ in range(rng.randrange(4)))
        whose = rng.choice(OWNERS)
        given = {
            Action.TOKENIZE: values,
            Action.DETOKENIZE: tuple(vault.token(whose, epoch, value) for value in values),
            Action.RETOKENIZE: tuple(vault.token(whose, max(1, epoch - rng.randrange(2)), value) for value in values),
        }.get(action, ())
        return self._invoke(action, owner, given, epoch if action is Action.ROTATE else 0)

    def _ask(self, asked: Invoke) -> None:
        if self._rng.random() < 0.1:
            self.events.append(Complete(asked.op, Outcome.FAIL, why="busy"))
            return
        self._under_way[asked.op] = steps_of(self._vault, asked)
        self._waiting.add(asked.op)

    def _go_on(self, op: int) -> None:
        if op in self._waiting and self._rng.random() < 0.05:
            self._waiting.discard(op)
            self.events.append(Complete(op, Outcome.UNKNOWN))
        elif op not in self._waiting and self._rng.random() < 0.1:
            del self._under_way[op]  # the rest of it never takes effect
        else:
            self._step(op)

    def _step(self, op: int) -> None:
        try:
            next(self._under_way[op])
        except StopIteration as end:
            del self._under_way[op]
            if op in self._waiting:
                self._waiting.discard(op)
                self.events.append(end.value)


def history(vault: Vault, rng: Random) -> History:
    """What clients of this vault saw, and its content at the end."""
    clients = Clients(vault, rng)
    clients.work()
    clients.read_everything()
    return History(clients.events, vault.narrow)
