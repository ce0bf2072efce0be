"""Clients: each makes one call after another, through any node, and records what it asked and what it was told.

The clients' values often meet: all clients use the values of the moment, and these change over time. Clients also read tokens
that nobody has been given yet (they know the keys), so that some reads run while the value is being written. They also read
tokens of other owners.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from random import Random
from typing import TYPE_CHECKING

from chaos.testbed.checkers import EPOCH_AHEAD
from chaos.testbed.history import KEY_ACTIONS, Action, Complete, Invoke, Outcome
from quorumvault.crypto.keys import Keyring
from quorumvault.crypto.tokens import format_token
from quorumvault.errors import EpochAhead, NoQuorum, Refused
from quorumvault.model import FIRST_EPOCH, NODE_NAMES, Owner
from quorumvault.server.coordinator.vault import Missing, Retokenized, Tokenized
from tests.simulation.timeline import Timer

if TYPE_CHECKING:
    from tests.simulation.nodes import Process
    from tests.simulation.world import World

OWNERS = (Owner("acme"), Owner("zeta"), Owner("mill"))
#: Most calls are for the first owner: things go wrong where clients meet.
_OWNER_WEIGHTS = (0, 0, 0, 0, 1, 1, 2)
#: The ids of the API keys that clients use and revoke.
KEYS = tuple(f"key{letter}" for letter in "abcdefghijklmnopqrst")
_ACTIONS = (
    *[Action.TOKENIZE] * 20,
    *[Action.DETOKENIZE] * 20,
    *[Action.RETOKENIZE] * 3,
    *[Action.EPOCH] * 2,
    *[Action.ROTATE] * 5,
)
#: Seconds after which a client stops waiting; longer than any node waits.
_PATIENCE = 8.0
#: After how many calls a new value joins the values of the moment, and how many of these there are.
_VALUE_AGE, _VALUES = 12, 4
#: Values or tokens in a call. A call without any reads the epoch.
_SIZES = (0, 1, 1, 2, 2, 1, 1)


@dataclass(frozen=True)
class Call:
    """One call, made after a pause. Its content follows from the dice and from what is known when it is made."""

    action: Action
    owner: Owner
    node: str
    pause: float
    dice: int


def plan(rng: Random, calls: int, actions: Sequence[Action] = _ACTIONS) -> tuple[Call, ...]:
    """Returns the calls of one client."""
    return tuple(
        Call(
            rng.choice(actions),
            OWNERS[rng.choice(_OWNER_WEIGHTS)],
            rng.choice(NODE_NAMES),
            rng.random() * 0.4,
            rng.getrandbits(32),
        )
        for _ in range(calls)
    )


def canonical(value: str) -> bytes:
    """Converts a value of the history to the vault's canonical form."""
    return b"s" + value.encode()


def token(keyring: Keyring, owner: Owner, value: str, epoch: int) -> str:
    (digest,) = keyring.epoch_keys(owner, epoch).digests([canonical(value)])
    return format_token(epoch, digest)


@lru_cache(maxsize=256)
def _meeting(keyring: Keyring, owner: Owner, epoch: int) -> list[list[str]]:
    """Values that share one token in this epoch, if tokens are cut short."""
    groups: dict[str, list[str]] = {}
    for number in range(300):
        groups.setdefault(token(keyring, owner, f"={number}", epoch), []).append(f"={number}")
    return [group for group in groups.values() if len(group) > 1]


class Client:
    """Makes one call at a time. A client begins when it is created, and tells the world when each call ends."""

    def __init__(self, world: World, calls: Sequence[Call]) -> None:
        self._world = world
        self._calls = iter(calls)
        self._op = 0
        self._patience: Timer | None = None
        self._next()

    def _next(self) -> None:
        call = next(self._calls, None)
        if call is not None:
            timeline = self._world.timeline
            timeline.at(timeline.now + call.pause, None, self._begin, call)

    def _begin(self, call: Call) -> None:
        given, epoch = self._choose(call)
        self.ask(call.action, call.owner, call.node, given, epoch)

    def ask(
        self, action: Action, owner: Owner, node: str, given: tuple[str, ...], epoch: int = 0, *, final: bool = False
    ) -> None:
        world, timeline = self._world, self._world.timeline
        op = self._op = world.invoke(
            Invoke(len(world.events), action, owner.name, node, given, epoch, round(timeline.now, 6), final)
        )
        work = partial(_work, action, owner, given, epoch)
        self._patience = timeline.at(timeline.now + _PATIENCE, None, self._end, op, Outcome.UNKNOWN)
        nodes = sorted(NODE_NAMES, key=lambda name: name != node)
        timeline.at(timeline.now + world.network.delay(), None, self._arrive, op, nodes, work)

    def _arrive(self, op: int, nodes: list[str], work: Callable[[Process], object]) -> None:
        """Goes to the first of these nodes that runs: a refused connection is sure to have done nothing."""
        process = next((process for node in nodes if (process := self._world.cluster[node].at_hand)), None)
        if process is None:
            self._end(op, Outcome.FAIL)
            return
        process.calls[op] = partial(self._end, op, Outcome.UNKNOWN)
        process.call(op, partial(work, process), partial(self._answered, op))  # type: ignore[arg-type]

    def _answered(self, op: int, result: object, error: Exception | None) -> None:
        timeline = self._world.timeline
        timeline.at(timeline.now + self._world.network.delay(), None, self._told, op, result, error)

    def _told(self, op: int, result: object, error: Exception | None) -> None:
        match error, result:
            case None, Tokenized() | Retokenized():
                answers = tuple(a.value if isinstance(a, Missing) else a for a in result.tokens)
                self._end(op, Outcome.OK, answers, result.epoch)
            case None, None:
                self._end(op, Outcome.OK)
            case None, str():
                self._end(op, Outcome.OK, (result,))
            case None, int():
                self._end(op, Outcome.OK, (), result)
            case None, list():
                self._end(op, Outcome.OK, tuple(a.value if isinstance(a, Missing) else a[1:].decode() for a in result))
            case NoQuorum(outcome=outcome), _:
                self._end(op, Outcome.UNKNOWN if outcome == "unknown" else Outcome.FAIL)
            case Refused(), None:
                self._world.branches["revocations refused"] += 1
                self._end(op, Outcome.FAIL)
            case EpochAhead(active_epoch=active), _:
                self._world.branches["rotate from an epoch to come"] += 1
                self._end(op, Outcome.FAIL, epoch=active, why=EPOCH_AHEAD)
            case _:
                raise AssertionError(f"a client was answered {result!r}") from error

    def _end(self, op: int, outcome: Outcome, answers: tuple[str | None, ...] = (), epoch: int = 0, why: str = "") -> None:
        if op != self._op or self._patience is None:
            return
        self._patience.cancel()
        self._patience = None
        self._world.complete(Complete(op, outcome, answers, epoch, round(self._world.timeline.now, 6), why))
        self._next()

    def _choose(self, call: Call) -> tuple[tuple[str, ...], int]:
        """Chooses the values, the tokens, or the epoch to rotate from."""
        dice, epoch = call.dice, self._world.epochs.get(call.owner.name, FIRST_EPOCH)
        if call.action is Action.ROTATE:
            return (), max(FIRST_EPOCH, epoch + (0, 0, 0, 0, 0, 0, -1, 1)[dice % 8])
        if call.action is Action.EPOCH:
            return (), 0
        if call.action in KEY_ACTIONS:
            return (KEYS[dice % len(KEYS)],), 0
        values = [self._value(call.owner, epoch, dice >> 8 * n) for n in range(_SIZES[dice % len(_SIZES)])]
        if call.action is Action.TOKENIZE:
            return tuple(values), 0
        asked = epoch - 1 if dice & 0x300 == 0 and epoch > FIRST_EPOCH else epoch
        owner = call.owner if dice & 0x1C00 else OWNERS[dice % len(OWNERS)]
        found = values or [self._value(call.owner, epoch, dice >> 16)]
        return tuple(token(self._world.keyring, owner, value, asked) for value in found), 0

    def _value(self, owner: Owner, epoch: int, dice: int) -> str:
        newest = len(self._world.events) // (2 * _VALUE_AGE)
        if self._world.narrow:
            groups = _meeting(self._world.keyring, owner, epoch)
            group = groups[(newest + dice % 2) % len(groups)]
            return group[dice // 8 % len(group)]
        number = newest + dice % _VALUES
        return f"={owner.name}-{number}" if dice & 64 else f"={number}"


async def _work(action: Action, owner: Owner, given: tuple[str, ...], epoch: int, process: Process) -> object:
    vault = process.node.vault(process)
    match action:
        case Action.USE_KEY:
            return process.node.use_key(process, given[0])
        case Action.REVOKE_KEY:
            return await process.node.revoke_key(process, given[0])
        case Action.TOKENIZE:
            return await vault.tokenize(owner, [canonical(value) for value in given])
        case Action.DETOKENIZE:
            return await vault.detokenize(owner, given)
        case Action.RETOKENIZE:
            return await vault.retokenize(owner, given)
        case Action.EPOCH:
            return await vault.epoch(owner)
        case Action.ROTATE:
            return await vault.rotate(owner, epoch)
