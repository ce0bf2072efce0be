"""A second opinion on histories: searches for an order in which a vault without replicas could have given the same answers.

checkers.py finds what is certain in one pass over a history. This module shares no code with it and takes the opposite approach:
it has a sequential specification of what clients see, and searches for linearization points (Wing, Gong, "Testing and verifying
concurrent objects", JPDC 1993; with a cache of the configurations tried, Lowe, "Testing for linearizability", 2017).
Linearizability is local (Herlihy, Wing 1990), so the search runs for each object alone:

    an owner's epoch   a counter. Rotating from its value raises it by one; operations that issue or find a token read it
    an owner's token   absent, then present for good; with narrow tokens, it may then become a collision for good

A token stands for one value, which is checked first: the answers show which tokens and values belong together. A write without
an answer may take effect at any time after it began, or never. The same holds for a write that was answered with a later epoch's
token, as regards its value's tokens of earlier epochs. Not checked: whether another owner has the same token, whether calls were
answered at all, the words of the answers, and which API keys were accepted.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from chaos.testbed.history import KEY_ACTIONS, Action, Complete, History, Invoke, Outcome

StateT = TypeVar("StateT", bound=Hashable)
#: An owner, and one of its tokens or values.
_Name = tuple[str, str]
#: Maps a state to the state after an operation, or to None if the operation's answer does not fit.
Effect = Callable[[StateT], StateT | None]

#: The most steps of the search for one object: about a second, and a hundred times what the longest history took.
_MOST_STEPS = 1_000_000
_FIRST_EPOCH = 1
_ABSENT, _THERE, _COLLIDED = "absent", "there", "collided"
_TOKEN = "qv_"
_WORDS = frozenset({"not_found", "unavailable", "collision"})


class NotLinearizable(Exception):
    """No order explains the answers about one object. ``op``: the operation that cannot extend any prefix found."""

    def __init__(self, what: str, op: int) -> None:
        super().__init__(f"{what}: no order of the operations explains what operation {op} was answered")
        self.op = op


class Undecided(Exception):
    """The search took too many steps."""


@dataclass(frozen=True, slots=True)
class Step(Generic[StateT]):
    """An operation on one object, between two events of the history. An operation that need not take effect has no end."""

    op: int
    began: int
    ended: float
    effect: Effect[StateT]

    @property
    def optional(self) -> bool:
        return self.ended == math.inf


class _Tried(NamedTuple):
    """A configuration: the required steps before ``low`` and those in ``ahead`` are done, and some optional steps."""

    low: int
    ahead: frozenset[int]
    optional: frozenset[int]
    state: Hashable


def search(what: str, steps: Iterable[Step[StateT]], initial: StateT) -> None:
    """Searches for an order of the steps from the initial state, each within its time. Raises NotLinearizable, Undecided."""
    ordered = sorted(steps, key=lambda step: step.began)
    required = [step for step in ordered if not step.optional]
    optional = [step for step in ordered if step.optional]
    stack = [_Tried(0, frozenset(), frozenset(), initial)]
    seen: set[_Tried] = set(stack)
    furthest = 0
    for _ in range(_MOST_STEPS):
        if not stack:
            raise NotLinearizable(what, required[furthest].op)
        tried = stack.pop()
        furthest = max(furthest, tried.low)
        if tried.low == len(required):
            return
        for following in _next(tried, required, optional):
            if following not in seen:
                seen.add(following)
                stack.append(following)
    raise Undecided(f"{what}: more than {_MOST_STEPS:,} steps")


def _next(tried: _Tried, required: list[Step[StateT]], optional: list[Step[StateT]]) -> Iterator[_Tried]:
    """Yields configurations after one more step, the most promising last. The step must begin before any open step ended."""
    low, ahead, taken, state = tried
    possible = []
    first_end = math.inf
    for index in range(low, len(required)):
        step = required[index]
        if step.began > first_end:
            break
        if index not in ahead:
            possible.append((step.ended, index, step))
            first_end = min(first_end, step.ended)
    for number, step in enumerate(optional):
        if step.began < first_end and number not in taken and (after := step.effect(state)) is not None and after != state:  # type: ignore[arg-type]
            yield tried._replace(optional=taken | {number}, state=after)
    for _, index, step in sorted(possible, key=lambda each: -each[0]):
        if step.began < first_end and (after := step.effect(state)) is not None:  # type: ignore[arg-type]
            yield _done(tried, index, after)


def _done(tried: _Tried, index: int, state: Hashable) -> _Tried:
    low, ahead = tried.low, tried.ahead | {index}
    while low in ahead:
        ahead -= {low}
        low += 1
    return tried._replace(low=low, ahead=ahead, state=state)


def require_linearizable(history: History) -> int:
    """Returns the number of tokens in the history. Raises NotLinearizable for the first inexplicable object; Undecided."""
    calls = list(_calls(history))
    for owner, on_epoch in _epochs(calls).items():
        search(f"the epoch of {owner}", on_epoch, _FIRST_EPOCH)
    tokens = _tokens(calls, narrow=history.narrow)
    for (owner, token), on_token in tokens.items():
        search(f"{token} of {owner}", on_token, _ABSENT)
    return len(tokens)


class _Call(NamedTuple):
    """An operation that may have taken effect. ``answer`` is None without an answer, or if it was refused."""

    invoke: Invoke
    answer: Complete | None
    began: int
    ended: float

    @property
    def pairs(self) -> Iterator[tuple[str, str | None]]:
        """Yields each given item with its answer."""
        return iter(()) if self.answer is None else zip(self.invoke.given, self.answer.answers, strict=True)


def _calls(history: History) -> Iterator[_Call]:
    begun: dict[int, tuple[Invoke, int]] = {}
    for at, event in enumerate(history.events):
        if isinstance(event, Invoke):
            begun[event.op] = event, at
            continue
        invoke, began = begun.pop(event.op)
        if invoke.action in KEY_ACTIONS:  # no epoch and no token
            continue
        if event.outcome is Outcome.OK or event.why == "epoch-ahead":
            yield _Call(invoke, event, began, at)
        elif event.outcome is Outcome.UNKNOWN:
            yield _Call(invoke, None, began, math.inf)
    for invoke, began in begun.values():
        if invoke.action not in KEY_ACTIONS:
            yield _Call(invoke, None, began, math.inf)


# An owner's epoch.


def _shows(epoch: int) -> Effect[int]:
    return lambda active: active if active == epoch else None


def _reaches(epoch: int) -> Effect[int]:
    return lambda active: active if active >= epoch else None


def _raises(start: int) -> Effect[int]:
    return lambda active: start + 1 if active == start else None


def _is_ahead(start: int, shown: int) -> Effect[int]:
    return lambda active: active if active < start and shown in (0, active) else None


def _never(active: int) -> None:
    return None


def _epochs(calls: Iterable[_Call]) -> dict[str, list[Step[int]]]:
    """Returns the steps on each owner's epoch.

    A rotate raises the epoch at any time after it began. It then shows the active epoch, which another rotate may have raised
    since. Among the rotates from one epoch, the first raise stands for all.
    """
    steps: dict[str, list[Step[int]]] = defaultdict(list)
    raised: set[tuple[str, int]] = set()
    for call in sorted(calls, key=lambda each: each.began):
        invoke, answer = call.invoke, call.answer
        refused = answer is not None and answer.outcome is not Outcome.OK
        if invoke.action is Action.ROTATE and not refused and (invoke.owner, invoke.epoch) not in raised:
            raised.add((invoke.owner, invoke.epoch))
            steps[invoke.owner].append(Step(invoke.op, call.began, math.inf, _raises(invoke.epoch)))
        if answer is not None and (effect := _shown(call, answer)) is not None:
            steps[invoke.owner].append(Step(invoke.op, call.began, call.ended, effect))
    return steps


def _shown(call: _Call, answer: Complete) -> Effect[int] | None:
    """Returns the effect of what an answer shows about the epoch, None if it shows nothing."""
    if answer.outcome is not Outcome.OK:
        return _is_ahead(call.invoke.epoch, answer.epoch)
    if call.invoke.action is Action.DETOKENIZE:
        found = [int(token.split("_", 2)[1]) for token, value in call.pairs if value is not None and value not in _WORDS]
        return _reaches(max(found)) if found else None
    if call.invoke.action is Action.ROTATE and answer.epoch <= call.invoke.epoch:
        return _never
    return _shows(answer.epoch)


# An owner's token.


def _writes(held: str) -> str | None:
    return None if held == _COLLIDED else _THERE


def _reads(held: str) -> str | None:
    return held if held == _THERE else None


def _misses(held: str) -> str | None:
    return held if held == _ABSENT else None


def _collides(held: str) -> str:
    return _COLLIDED


class _Values:
    """The tokens and values of each owner that belong together according to answers: union-find, with the members of each class.

    A class has one value and one token in each epoch; else a token would have two values in every order of the operations.
    """

    def __init__(self) -> None:
        self._parents: dict[_Name, _Name] = {}
        #: By class: its value under "", and its tokens by their epochs.
        self._members: dict[_Name, dict[str, str]] = {}

    def find(self, name: _Name) -> _Name:
        if name not in self._parents:
            self._parents[name] = name
            self._members[name] = {name[1].rpartition("_")[0] if name[1].startswith(_TOKEN) else "": name[1]}
        while (parent := self._parents[name]) != name:
            self._parents[name] = name = self._parents[parent]
        return name

    def known(self, found: _Name) -> bool:
        """Returns whether the value of this class is known."""
        return "" in self._members[found]

    def unite(self, op: int, owner: str, one: str, other: str) -> None:
        first, second = self.find((owner, one)), self.find((owner, other))
        if first == second:
            return
        mine, theirs = self._members.pop(first), self._members[second]
        for kind in mine.keys() & theirs.keys():
            raise NotLinearizable(f"{mine[kind]} and {theirs[kind]} of {owner}", op)
        self._parents[first] = second
        theirs |= mine


def _tokens(calls: list[_Call], *, narrow: bool) -> dict[_Name, list[Step[str]]]:
    """Returns the steps on each owner's tokens, with possible writes without an answer. For narrow tokens any write counts."""
    calls = sorted(calls, key=lambda each: each.began)
    values = _Values()
    for call in calls if not narrow else ():
        for given, answer in call.pairs:
            if answer is not None and answer not in _WORDS:
                values.unite(call.invoke.op, call.invoke.owner, given, answer)
    writers = _Writers(values)
    steps: dict[_Name, list[Step[str]]] = defaultdict(list)
    for call in calls:
        writers.add(call)
        for token, effect in _effects(call):
            steps[call.invoke.owner, token].append(Step(call.invoke.op, call.began, call.ended, effect))
    for name, found in steps.items():
        found += writers.of(name)
    return steps


class _Writers:
    """The calls that may have written a token without an answer: for each class the first two calls, with their items.

    Two calls, since a call that moves a token does not write that token. A class of unknown value may have any of its owner's.
    """

    def __init__(self, values: _Values) -> None:
        self._values = values
        self._found: dict[_Name, list[tuple[str, Step[str]]]] = defaultdict(list)

    def add(self, call: _Call) -> None:
        if call.invoke.action not in (Action.TOKENIZE, Action.RETOKENIZE):
            return
        owner, step = call.invoke.owner, Step(call.invoke.op, call.began, math.inf, _writes)
        for given in call.invoke.given:
            for of in (self._values.find((owner, given)), (owner, "")):
                found = self._found[of]
                if len(found) < 2 and given not in (before for before, _ in found):
                    found.append((given, step))

    def of(self, name: _Name) -> list[Step[str]]:
        """Returns one step, or none if no call can have written the token."""
        value = self._values.find(name)
        found = self._found[value if self._values.known(value) else (name[0], "")]
        return [step for given, step in found if given != name[1]][:1]


def _effects(call: _Call) -> Iterator[tuple[str, Effect[str]]]:
    """Yields what an answered call shows about tokens. ``unavailable`` and a collision of unknown tokens show nothing."""
    for given, answer in call.pairs:
        match call.invoke.action, answer:
            case (_, "unavailable" | None) | (Action.RETOKENIZE, "collision"):
                pass
            case _, "not_found":
                yield given, _misses
            case _, "collision":
                yield given, _collides
            case Action.TOKENIZE, token:
                yield token, _writes
            case Action.DETOKENIZE, _:
                yield given, _reads
            case Action.RETOKENIZE, token:
                yield given, _reads
                if token != given:
                    yield token, _writes
