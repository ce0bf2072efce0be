"""The history: what clients asked and what they were told, in the order in which it happened.

    invoke    the client sends
    ok        it has an answer
    fail      it was told that nothing was done
    unknown   it was told nothing, or that it may have happened; it may yet

Values are written "=…", tokens as they are, and what stands in for either is a word of the contract (not_found, …). An operation
without a second event is unknown. The same shape comes out of the simulator and, as JSON, out of files.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Action(StrEnum):
    TOKENIZE = "tokenize"
    DETOKENIZE = "detokenize"
    RETOKENIZE = "retokenize"
    EPOCH = "epoch"
    ROTATE = "rotate"


class Outcome(StrEnum):
    OK = "ok"
    FAIL = "fail"
    UNKNOWN = "unknown"


class Invoke(msgspec.Struct, frozen=True, tag="invoke", tag_field="event"):
    """``given`` are values or tokens; ``epoch`` is what a rotate is from. ``final``: asked when nothing was broken any more."""

    op: int
    action: Action
    owner: str
    node: str
    given: tuple[str, ...] = ()
    epoch: int = 0
    at: float = 0.0
    final: bool = False


class Complete(msgspec.Struct, frozen=True, tag="complete", tag_field="event"):
    """``answers`` stand beside what was given; None is a value that met another one in its token."""

    op: int
    outcome: Outcome
    answers: tuple[str | None, ...] = ()
    epoch: int = 0
    at: float = 0.0


class History(msgspec.Struct, frozen=True):
    """``narrow``: tokens are cut short, so that values meet. ``excused``: (owner, token) whose copies rotted, and so may stay
    unavailable."""

    events: list[Invoke | Complete]
    narrow: bool = False
    excused: frozenset[tuple[str, str]] = frozenset()
    #: What bad histories in files are an example of.
    breaks: str | None = None


def lines(history: History) -> list[str]:
    """For people, one event a line."""
    told = []
    for event in history.events:
        if isinstance(event, Invoke):
            what = ", ".join(event.given) or (f"from {event.epoch}" if event.epoch else "")
            told.append(f"{event.at:9.4f}  {event.op:4}  {event.node}  {event.owner:6} {event.action} {what}")
        else:
            what = ", ".join(str(answer) for answer in event.answers)
            epoch = f" epoch {event.epoch}" if event.epoch else ""
            told.append(f"{event.at:9.4f}  {event.op:4}      -> {event.outcome}{epoch} {what}")
    return told
