"""What a history may never show. One pass over its events, so linear; and exact, since each rule asks only for what is certain.

A key is (owner, token). From the moment at which a client heard that a token stands for a value (it was issued, or read), whoever
asks later may not be told less: that is all there is to linearizability for a register that is written once. The active epoch is
a max-register, and every operation that shows an epoch reads it: this is the fence, across keys. An operation that was told
nothing may take effect at any time, or never.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from chaos.history import Action, Complete, History, Invoke, Outcome

NOT_FOUND, UNAVAILABLE, COLLISION = "not_found", "unavailable", "collision"
_WORDS = frozenset({NOT_FOUND, UNAVAILABLE, COLLISION})
_FIRST_EPOCH = 1


@dataclass(eq=False)  # not frozen: Python sets the traceback and the cause of what is raised
class Violation(Exception):
    """``rule`` is a short name, the same for the same kind of wrong; ``op`` is where it shows, -1 at the very end."""

    rule: str
    detail: str
    op: int = -1

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail}"


Key = tuple[str, str]


@dataclass
class _Begun:
    """An operation under way, and what was certain when it began: the epoch, and which of its tokens stand for a value."""

    invoke: Invoke
    epoch: int
    present: tuple[bool, ...]


def check(history: History) -> None:
    """Raises Violation at the first event that cannot be right."""
    checker = _Checker(history)
    for event in history.events:
        try:
            if isinstance(event, Invoke):
                checker.begin(event)
            else:
                checker.end(event)
        except Violation as found:
            raise replace(found, op=event.op) from None
    checker.finish()


class _Checker:
    def __init__(self, history: History) -> None:
        self._history = history
        self._begun: dict[int, _Begun] = {}
        self._epochs: dict[str, int] = {}
        #: Keys that stand for a value, and which, None while that has not been seen.
        self._values: dict[Key, str | None] = {}
        self._issuers: dict[str, str] = {}
        #: By owner, value, and the token's beginning, which shows its epoch.
        self._tokens: dict[tuple[str, str, str], str] = {}
        self._collided: set[Key] = set()
        #: How many operations may have written a value, and may have opened an epoch.
        self._writers: Counter[Key] = Counter()
        self._openers: Counter[tuple[str, int]] = Counter()

    def begin(self, event: Invoke) -> None:
        owner = event.owner
        present = tuple((owner, given) in self._values for given in event.given)
        self._begun[event.op] = _Begun(event, self._epochs.get(owner, _FIRST_EPOCH), present)
        if event.action is Action.TOKENIZE:
            self._writers.update((owner, value) for value in event.given)
        elif event.action is Action.ROTATE:
            self._openers[owner, event.epoch + 1] += 1

    def end(self, event: Complete) -> None:
        begun = self._begun.pop(event.op)
        invoke = begun.invoke
        if event.outcome is not Outcome.OK:
            if invoke.final:
                raise Violation("unanswered", f"operation {event.op} found no answer though nothing was broken any more")
            if event.outcome is Outcome.FAIL:
                self._take_back(invoke)
            return
        if invoke.action is not Action.DETOKENIZE:
            self._check_epoch(begun, event)
        match invoke.action:
            case Action.TOKENIZE:
                self._check_issued(invoke, event)
            case Action.DETOKENIZE:
                self._check_read(begun, event)
            case Action.RETOKENIZE:
                self._check_moved(begun, event)

    def finish(self) -> None:
        unanswered = [begun.invoke.op for begun in self._begun.values() if begun.invoke.final]
        if unanswered:
            raise Violation("unanswered", f"operations {unanswered} never ended though nothing was broken any more")

    def _take_back(self, invoke: Invoke) -> None:
        """A failure is certain: this operation wrote nothing, and never will."""
        if invoke.action is Action.TOKENIZE:
            self._writers.subtract((invoke.owner, value) for value in invoke.given)
        elif invoke.action is Action.ROTATE:
            self._openers[invoke.owner, invoke.epoch + 1] -= 1

    def _check_epoch(self, begun: _Begun, event: Complete) -> None:
        owner, epoch = begun.invoke.owner, event.epoch
        if epoch < begun.epoch:
            rule = "fence" if begun.invoke.action in (Action.TOKENIZE, Action.RETOKENIZE) else "max-register"
            raise Violation(rule, f"operation {event.op} shows epoch {epoch}; {begun.epoch} was shown before it began")
        if epoch > _FIRST_EPOCH and self._openers[owner, epoch] <= 0:
            raise Violation("epoch from nowhere", f"operation {event.op} shows epoch {epoch}, which no rotate has opened")
        if begun.invoke.action is Action.ROTATE and epoch <= begun.invoke.epoch:
            raise Violation("rotate", f"operation {event.op} rotated from {begun.invoke.epoch} and is still at {epoch}")
        self._epochs[owner] = max(self._epochs.get(owner, _FIRST_EPOCH), epoch)

    def _check_issued(self, invoke: Invoke, event: Complete) -> None:
        for value, token in zip(invoke.given, event.answers, strict=True):
            if token is None:
                self._require_narrow(invoke.op, value)
                continue
            self._issue(invoke, event.epoch, token, value)

    def _issue(self, invoke: Invoke, epoch: int, token: str, value: str | None) -> None:
        if not token.startswith(f"qv_{epoch}_"):
            raise Violation("epoch of token", f"operation {invoke.op} was answered {token} for epoch {epoch}")
        if self._issuers.setdefault(token, invoke.owner) != invoke.owner and not self._history.narrow:
            raise Violation("isolation", f"operation {invoke.op}: {token} was issued to {self._issuers[token]} too")
        self._stands_for(invoke, token, value)

    def _check_read(self, begun: _Begun, event: Complete) -> None:
        invoke = begun.invoke
        for token, present, answer in zip(invoke.given, begun.present, event.answers, strict=True):
            if answer in _WORDS:
                self._check_missing(invoke, token, present, str(answer))
                continue
            value = str(answer)
            if self._writers[invoke.owner, value] <= 0:
                others = sorted(owner for (owner, written), count in self._writers.items() if written == value and count > 0)
                rule = "isolation" if others else "value from nowhere"
                raise Violation(rule, f"operation {event.op}: {invoke.owner} reads {value}, which it never wrote; {others} did")
            issuer = self._issuers.get(token, invoke.owner)
            if issuer != invoke.owner and not self._history.narrow:
                raise Violation("isolation", f"operation {event.op}: {invoke.owner} reads {token}, which was issued to {issuer}")
            self._stands_for(invoke, token, value)

    def _check_moved(self, begun: _Begun, event: Complete) -> None:
        invoke = begun.invoke
        for token, present, answer in zip(invoke.given, begun.present, event.answers, strict=True):
            if answer is None:
                self._require_narrow(invoke.op, token)
            elif answer in _WORDS:
                self._check_missing(invoke, token, present, answer)
            else:
                value = self._values.setdefault((invoke.owner, token), None)
                self._issue(invoke, event.epoch, answer, value)

    def _check_missing(self, invoke: Invoke, token: str, present: bool, word: str) -> None:
        key = (invoke.owner, token)
        if word == NOT_FOUND and present:
            raise Violation("lost", f"operation {invoke.op}: {token} is not found, and stood for {self._values[key]} before")
        if word == COLLISION:
            self._require_narrow(invoke.op, token)
            if invoke.action is Action.DETOKENIZE:
                self._collided.add(key)
        if word == UNAVAILABLE and invoke.final and key not in self._history.excused:
            raise Violation("unanswered", f"operation {invoke.op}: {token} is unavailable though nothing was broken any more")

    def _stands_for(self, invoke: Invoke, token: str, value: str | None) -> None:
        key = (invoke.owner, token)
        known = self._values.get(key)
        if known is not None and value is not None and known != value:
            raise Violation("write-once", f"operation {invoke.op}: {token} stands for {value}, and for {known} before")
        if key in self._collided:
            raise Violation("collision for good", f"operation {invoke.op}: {token} stands for {value} after it had collided")
        self._values[key] = value = known if value is None else value
        epoch = token.rpartition("_")[0]
        if value is not None and self._tokens.setdefault((invoke.owner, value, epoch), token) != token:
            raise Violation("deterministic", f"operation {invoke.op}: {value} has a second token in its epoch, {token}")

    def _require_narrow(self, op: int, what: str) -> None:
        if not self._history.narrow:
            raise Violation("false collision", f"operation {op}: {what} is said to have met another value")
