"""Checks what a history may never show, in one pass and so in linear time. It is exact: each rule judges only what is certain.

A key is (owner, token). Once a client has heard that a token stands for a value (it was issued, moved, or read), no later request
may be told less: for a write-once register, this is all of linearizability. A token that moved stands for the same value before
and after, whether the history has shown that value yet or not. The active epoch is a max-register that rises in steps of one.
Every operation that shows an epoch, if only in a token, reads it: this is the fence across keys. An operation without an answer
may take effect at any time, or never. key_checker.py checks API keys.
"""

from collections import Counter
from dataclasses import dataclass, replace

from chaos.testbed.history import KEY_ACTIONS, Action, Complete, History, Invoke, Outcome
from chaos.testbed.key_checker import KeyChecker
from chaos.testbed.violation import Violation

NOT_FOUND, UNAVAILABLE, COLLISION = "not_found", "unavailable", "collision"
#: The reason for refusing a rotate from an epoch that is not active yet.
EPOCH_AHEAD = "epoch-ahead"
_WORDS = frozenset({NOT_FOUND, UNAVAILABLE, COLLISION})
_FIRST_EPOCH = 1


Key = tuple[str, str]


@dataclass(frozen=True)
class _Begun:
    """An operation under way: the number of events before it, and the epoch that was certain by then."""

    invoke: Invoke
    at: int
    epoch: int


@dataclass(eq=False)
class _Meaning:
    """One value of one owner and its token in each epoch, as far as answers showed that they belong together.

    ``value`` is None while only tokens are known: a retokenize shows two tokens, and no value.
    """

    tokens: dict[int, str]
    value: str | None = None


def check(history: History) -> None:
    """Checks a history. Raises Violation at the first event that cannot be right."""
    checker, keys = _Checker(history), KeyChecker()
    of_keys = {event.op for event in history.events if isinstance(event, Invoke) and event.action in KEY_ACTIONS}
    for event in history.events:
        judge = keys if event.op in of_keys else checker
        try:
            if isinstance(event, Invoke):
                judge.begin(event)
            else:
                judge.end(event)
        except Violation as found:
            raise replace(found, op=event.op) from None
    checker.finish()


class _Checker:
    def __init__(self, history: History) -> None:
        self._history = history
        #: The number of events so far.
        self._now = 0
        self._begun: dict[int, _Begun] = {}
        self._epochs: dict[str, int] = {}
        #: The meaning of each key that stands for a value, and of each owner's value, as far as known.
        self._meanings: dict[Key, _Meaning] = {}
        self._named: dict[tuple[str, str], _Meaning] = {}
        #: When it was first seen that a key stands for a value, and that two values collide in it.
        self._found: dict[Key, int] = {}
        self._collided: dict[Key, int] = {}
        #: The owner of each token; the number of tokens seen, by owner and epoch; and the largest of these numbers, by owner.
        self._owners: dict[str, str] = {}
        self._tokens: Counter[tuple[str, int]] = Counter()
        self._most: Counter[str] = Counter()
        #: The operations that may have written a value, or opened an epoch; the values that an owner may have written.
        self._writers: Counter[tuple[str, str]] = Counter()
        self._openers: Counter[tuple[str, int]] = Counter()
        self._written: Counter[str] = Counter()

    def begin(self, event: Invoke) -> None:
        self._now += 1
        owner = event.owner
        self._begun[event.op] = _Begun(event, self._now, self._epoch(owner))
        if event.action is Action.TOKENIZE:
            for value in event.given:
                self._writers[owner, value] += 1
                self._written[owner] += self._writers[owner, value] == 1
        elif event.action is Action.ROTATE:
            self._openers[owner, event.epoch + 1] += 1

    def end(self, event: Complete) -> None:
        self._now += 1
        begun = self._begun.pop(event.op)
        invoke = begun.invoke
        if event.outcome is not Outcome.OK:
            if invoke.final:
                raise Violation("unanswered", f"operation {event.op} found no answer though nothing was broken any more")
            if event.outcome is Outcome.FAIL:
                self._take_back(invoke)
                if event.why == EPOCH_AHEAD:
                    self._check_ahead(begun, event)
        else:
            self._check_answered(begun, event)
        if self._most[invoke.owner] > self._written[invoke.owner]:
            words = f"{invoke.owner} has more tokens in an epoch than it wrote values"
            raise Violation("value from nowhere", f"operation {event.op}: {words}: {self._written[invoke.owner]}")

    def finish(self) -> None:
        unanswered = [begun.invoke.op for begun in self._begun.values() if begun.invoke.final]
        if unanswered:
            raise Violation("unanswered", f"operations {unanswered} never ended though nothing was broken any more")

    def _take_back(self, invoke: Invoke) -> None:
        """Handles a certain failure: this operation wrote nothing, and never will. No client may have seen what only it would
        have written."""
        owner = invoke.owner
        if invoke.action is Action.TOKENIZE:
            for value in invoke.given:
                self._writers[owner, value] -= 1
                if self._writers[owner, value] == 0:
                    self._written[owner] -= 1
                    if (owner, value) in self._named:
                        raise Violation("value from nowhere", f"operation {invoke.op} failed, and its {value} was read")
        elif invoke.action is Action.ROTATE:
            opened = invoke.epoch + 1
            self._openers[owner, opened] -= 1
            if opened <= self._epoch(owner) and self._openers[owner, opened] == 0:
                raise Violation("epoch from nowhere", f"operation {invoke.op} failed, and its {opened} was shown")

    def _epoch(self, owner: str) -> int:
        """Returns the largest epoch that was shown."""
        return self._epochs.get(owner, _FIRST_EPOCH)

    def _show_epoch(self, invoke: Invoke, epoch: int) -> None:
        """Notes that an epoch is or was active: a rotate from the epoch before opened it, and so for each earlier epoch."""
        known = self._epoch(invoke.owner)
        closed = next((step for step in range(known + 1, epoch + 1) if self._openers[invoke.owner, step] <= 0), None)
        if closed is not None:
            raise Violation("epoch from nowhere", f"operation {invoke.op} shows epoch {epoch}, and no rotate has opened {closed}")
        self._epochs[invoke.owner] = max(known, epoch)

    def _check_epoch(self, begun: _Begun, event: Complete) -> None:
        invoke, epoch = begun.invoke, event.epoch
        if epoch < begun.epoch:
            rule = "fence" if invoke.action in (Action.TOKENIZE, Action.RETOKENIZE) else "max-register"
            raise Violation(rule, f"operation {event.op} shows epoch {epoch}; {begun.epoch} was shown before it began")
        self._show_epoch(invoke, epoch)
        if invoke.action is Action.ROTATE and epoch <= invoke.epoch:
            raise Violation("rotate", f"operation {event.op} rotated from {invoke.epoch} and is still at {epoch}")

    def _check_ahead(self, begun: _Begun, event: Complete) -> None:
        """Checks a refused rotate, which reads an epoch smaller than the one to rotate from. 0: the epoch was not recorded."""
        invoke = begun.invoke
        active = event.epoch or begun.epoch
        if max(active, begun.epoch) >= invoke.epoch:
            raise Violation("false epoch-ahead", f"operation {event.op} is told that {invoke.epoch} is ahead; {active} is active")
        if active < begun.epoch:
            raise Violation("max-register", f"operation {event.op} shows epoch {active}; {begun.epoch} was shown before it began")
        self._show_epoch(invoke, active)

    def _check_answered(self, begun: _Begun, event: Complete) -> None:
        if begun.invoke.action is not Action.DETOKENIZE:
            self._check_epoch(begun, event)
        match begun.invoke.action:
            case Action.TOKENIZE:
                self._check_issued(begun, event)
            case Action.DETOKENIZE:
                self._check_read(begun, event)
            case Action.RETOKENIZE:
                self._check_moved(begun, event)

    def _check_issued(self, begun: _Begun, event: Complete) -> None:
        for value, token in zip(begun.invoke.given, event.answers, strict=True):
            if token is None:
                self._require_narrow(event.op, value)
                continue
            self._require_epoch(event, token)
            self._name(event.op, self._find(begun, token), begun.invoke.owner, value)

    def _check_read(self, begun: _Begun, event: Complete) -> None:
        invoke = begun.invoke
        for token, answer in zip(invoke.given, event.answers, strict=True):
            if answer in _WORDS:
                self._check_missing(begun, token, str(answer))
                continue
            value = str(answer)
            if self._writers[invoke.owner, value] <= 0:
                others = sorted(owner for (owner, written), count in self._writers.items() if written == value and count > 0)
                rule = "isolation" if others else "value from nowhere"
                raise Violation(rule, f"operation {event.op}: {invoke.owner} reads {value}, which it never wrote; {others} did")
            self._name(event.op, self._find(begun, token), invoke.owner, value)

    def _check_moved(self, begun: _Begun, event: Complete) -> None:
        for token, answer in zip(begun.invoke.given, event.answers, strict=True):
            if answer is None:
                self._require_narrow(event.op, token)
            elif answer in _WORDS:
                self._check_missing(begun, token, answer)
            else:
                self._require_epoch(event, answer)
                self._unite(event.op, begun.invoke.owner, self._find(begun, token), self._find(begun, answer))

    def _check_missing(self, begun: _Begun, token: str, word: str) -> None:
        invoke = begun.invoke
        key = (invoke.owner, token)
        if word == NOT_FOUND and self._found.get(key, begun.at) < begun.at:
            value = self._meanings[key].value
            raise Violation("lost", f"operation {invoke.op}: {token} is not found, and stood for {value or 'a value'} before")
        if word == COLLISION:
            self._require_narrow(invoke.op, token)
            if invoke.action is Action.DETOKENIZE:
                self._collided.setdefault(key, self._now)
        if word == UNAVAILABLE and invoke.final and key not in self._history.excused:
            raise Violation("unanswered", f"operation {invoke.op}: {token} is unavailable though nothing was broken any more")

    def _find(self, begun: _Begun, token: str) -> _Meaning:
        """Notes that this owner's token stands for a value, known or not. Returns its meaning."""
        invoke = begun.invoke
        key = (invoke.owner, token)
        if self._collided.get(key, begun.at) < begun.at:
            raise Violation("collision for good", f"operation {invoke.op}: {token} stands for a value after it had collided")
        known = self._meanings.get(key)
        if known is not None:
            return known
        owner = self._owners.setdefault(token, invoke.owner)
        if owner != invoke.owner and not self._history.narrow:
            raise Violation(
                "isolation", f"operation {invoke.op}: {token} stands for a value of {invoke.owner}, and of {owner} too"
            )
        epoch = epoch_of(token)
        self._show_epoch(invoke, epoch)
        self._tokens[invoke.owner, epoch] += 1
        self._most[invoke.owner] = max(self._most[invoke.owner], self._tokens[invoke.owner, epoch])
        self._found[key] = self._now
        found = self._meanings[key] = _Meaning({epoch: token})
        return found

    def _name(self, op: int, meaning: _Meaning, owner: str, value: str) -> None:
        """Notes the value of a meaning. Raises Violation if the meaning has another value."""
        named = self._named.setdefault((owner, value), meaning)
        if named is not meaning:
            self._unite(op, owner, named, meaning)
        elif meaning.value is None:
            meaning.value = value
        elif meaning.value != value:
            raise _two_values(op, meaning, value)

    def _unite(self, op: int, owner: str, one: _Meaning, other: _Meaning) -> None:
        """Unites two meanings of the same value, which has one token in each epoch."""
        if one is other:
            return
        if one.value is not None and other.value is not None:
            raise _two_values(op, other, one.value)
        for epoch in one.tokens.keys() & other.tokens.keys():
            what = one.value or other.value or "a value"
            tokens = f"{one.tokens[epoch]} and {other.tokens[epoch]}"
            raise Violation("deterministic", f"operation {op}: {what} has two tokens in epoch {epoch}, {tokens}")
        kept, gone = (one, other) if len(one.tokens) >= len(other.tokens) else (other, one)
        kept.tokens |= gone.tokens
        self._meanings.update(((owner, token), kept) for token in gone.tokens.values())
        if gone.value is not None:
            kept.value = gone.value
            self._named[owner, gone.value] = kept

    def _require_epoch(self, event: Complete, token: str) -> None:
        if not token.startswith(f"qv_{event.epoch}_"):
            raise Violation("epoch of token", f"operation {event.op} was answered {token} for epoch {event.epoch}")

    def _require_narrow(self, op: int, what: str) -> None:
        if not self._history.narrow:
            raise Violation("false collision", f"operation {op}: {what} is said to have met another value")


def epoch_of(token: str) -> int:
    """Returns the epoch that a token shows."""
    return int(token.split("_", 2)[1])


def _two_values(op: int, meaning: _Meaning, value: str) -> Violation:
    tokens = " and ".join(meaning.tokens.values())
    return Violation("write-once", f"operation {op}: the value of {tokens} is {value}, and was {meaning.value} before")
