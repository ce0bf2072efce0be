"""The verdict on a run: valid, invalid, or unknown.

A run is invalid if something is certainly wrong: its history breaks a rule (testbed/checkers.py), or no order of the operations
explains it (testbed/linearizability.py, the second opinion); an answer is outside the API's contract; a node ended by itself
without damage to its disk, or did not come back; or an aim of liveness was missed (liveness.py). A run is unknown if it saw
nothing wrong but too little to rule a fault out, for instance on a busy machine. Every other run is valid.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from chaos.liveness import Liveness
from chaos.summary import NOTHING_READ, Broken, Exit, FinalReads, Verdict
from chaos.testbed.checkers import check
from chaos.testbed.history import KEY_ACTIONS, Action, Complete, History, Invoke, Outcome, paired
from chaos.testbed.linearizability import NotLinearizable, Undecided, require_linearizable
from chaos.testbed.violation import Violation

#: The most operations to show for one that breaks a rule: earlier operations with the same tokens or values.
_SHOWN = 40
_NOWHERE = -1
#: Matches a value or a token of a history in a text about it.
_NAME = re.compile(r"=[^\s;,]+|qv_[0-9]+_[0-9a-z]+")


@dataclass
class Observed:
    """Observations of a run that are not in its history.

    ``planned``: kinds of faults. ``unavailable``: kinds that could not be applied, with reasons. ``outlived``: processes that did
    not end as they should when their disk was replaced, and new disks that did not join.
    """

    breaches: list[tuple[int, str]] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    not_ready: list[str] = field(default_factory=list)
    outlived: list[str] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)
    final: FinalReads = NOTHING_READ
    planned: frozenset[str] = frozenset()
    version: str = ""


class Judgement(NamedTuple):
    """``too_busy``: the verdict is unknown only because the machine was busy with other things."""

    verdict: Verdict
    reasons: tuple[str, ...]
    broken: Broken | None
    too_busy: bool = False


def judge(history: History, observed: Observed, applied: Collection[str], liveness: Liveness) -> Judgement:
    """Judges a run. ``applied``: the kinds of faults that were applied."""
    try:
        broken = _broken(history, observed)
    except Undecided as undecided:
        return Judgement(Verdict.UNKNOWN, (f"the second checker gave up: {undecided}",), None)
    if broken is not None:
        return Judgement(Verdict.INVALID, (f"{broken.rule}: {broken.detail}",), broken)
    if liveness.missed:
        reasons = tuple(f"{rule}: {detail}" for rule, detail in liveness.missed)
        return Judgement(Verdict.INVALID, reasons, Broken(*liveness.missed[0], _NOWHERE, ()))
    missing = (*_missing(history, observed, applied), *liveness.few)
    if missing or liveness.busy:
        return Judgement(Verdict.UNKNOWN, (*missing, *liveness.busy), None, too_busy=not missing)
    return Judgement(Verdict.VALID, (), None)


def _broken(history: History, observed: Observed) -> Broken | None:
    """Returns the first broken rule, the most important first. Raises Undecided if nothing else is wrong."""
    try:
        check(history)
    except Violation as found:
        about = frozenset(_NAME.findall(found.detail))
        return Broken(found.rule, found.detail, found.op, related(history, found.op, about))
    for op, words in observed.breaches:
        return Broken("contract", words, op, (op,))
    for exit_ in observed.exits:
        if not exit_.expected:
            detail = f"{exit_.node} ended by itself at {exit_.at:.1f} s with exit code {exit_.code}: {exit_.words}"
            return Broken("ended by itself", detail, _NOWHERE, ())
    for words in observed.outlived:
        return Broken("replaced disk", words, _NOWHERE, ())
    for words in observed.not_ready:
        return Broken("not back", words, _NOWHERE, ())
    try:
        require_linearizable(history)
    except NotLinearizable as unexplained:
        return Broken("linearizability", str(unexplained), unexplained.op, related(history, unexplained.op, frozenset()))
    return None


def _by_rules(history: History) -> tuple[Verdict, str]:
    try:
        check(history)
    except Violation as found:
        return Verdict.INVALID, str(found)
    return Verdict.VALID, ""


def _by_search(history: History) -> tuple[Verdict, str]:
    try:
        tokens = require_linearizable(history)
    except NotLinearizable as found:
        return Verdict.INVALID, str(found)
    except Undecided as gave_up:
        return Verdict.UNKNOWN, str(gave_up)
    return Verdict.VALID, f"{tokens:,} tokens"


#: Checkers of histories, which share no code. Each returns its verdict and the reason.
OPINIONS: Mapping[str, Callable[[History], tuple[Verdict, str]]] = {"rules": _by_rules, "linearizability": _by_search}


def _missing(history: History, observed: Observed, applied: Collection[str]) -> Iterable[str]:
    """Yields what a valid run has to show and this one has not shown."""
    calls = paired(history.events).values()
    done = {invoke.action for invoke, complete in calls if complete is not None and complete.outcome is Outcome.OK}
    for action in Action:
        if action not in done:
            yield f"no {action} succeeded"
    if not observed.final.tokens:
        yield "what was stored was not read back at the end"
    if observed.planned and not applied:
        yield "none of the faults could be applied"
    for kind in sorted(observed.planned.difference(applied, observed.unavailable)):
        yield f"no {kind} was applied, and nobody said why"


def related(history: History, op: int, about: frozenset[str]) -> tuple[int, ...]:
    """Returns the last operations up to ``op`` with one of the values or tokens in ``about``.

    If ``about`` is empty, the violation is about an API key, or about the epoch, and so about all operations that showed or
    opened an epoch of the same owner.
    """
    calls = paired(history.events)
    if op not in calls:
        return ()
    owner = calls[op][0].owner

    def concerns(invoke: Invoke, complete: Complete | None) -> bool:
        if calls[op][0].action in KEY_ACTIONS:
            return invoke.action in KEY_ACTIONS and invoke.given == calls[op][0].given
        if about:
            return not about.isdisjoint((*invoke.given, *(complete.answers if complete else ())))
        return invoke.owner == owner and invoke.action is not Action.DETOKENIZE

    return (*[number for number, call in calls.items() if number < op and concerns(*call)][-_SHOWN:], op)
