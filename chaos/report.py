"""The report page of a run: its results for people, in one self-contained HTML file.

``write`` reads the files of a run (summary.json, history.jsonl) and writes report.html beside them, from the template of the same
name. This module computes the content of the page; the template has its layout.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from chaos import timechart
from chaos.summary import Share, Spread, Summary, Verdict
from chaos.tellers import loaded, quietly, share, span
from chaos.testbed import history
from chaos.testbed.history import Begun, Complete, FaultBegan, FaultEnded, Invoke, Note, Outcome, Record

PAGE = "report.html"
#: The most pairs of a call to show if none of them is known to matter.
_PAIRS = 4
#: Finds the tokens and values that a rule's detail names.
_NAMED = re.compile(r"qv_\d+_\w+|=[\w#-]+")
_MEANINGS = {
    Verdict.VALID: "No answer breaks a rule, no aim was missed, and enough was asked to say so.",
    Verdict.INVALID: "An answer breaks a rule, or an aim was missed: the store was wrong.",
    Verdict.UNKNOWN: "Nothing wrong was seen, and not enough was seen to say that nothing is.",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """One item of a call, and its answer, if any. ``named``: the broken rule is about this item."""

    given: str
    answer: str | None
    named: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A call that a violation is about, or a fault between two such calls (``words``). ``more``: how many pairs are not shown."""

    at: float
    words: str = ""
    invoke: Invoke | None = None
    complete: Complete | None = None
    pairs: tuple[Pair, ...] = ()
    more: int = 0
    guilty: bool = False


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure in large letters. ``held`` says whether its aim was met; None without an aim."""

    figure: str
    words: str
    held: bool | None = None


def write(directory: Path) -> Path:
    """Writes the page of the run in this directory. Returns its path. Raises OSError, msgspec.MsgspecError."""
    summary = msgspec.json.decode((directory / "summary.json").read_bytes(), type=Summary)
    page = directory / PAGE
    page.write_text(render(summary, history.read(directory / "history.jsonl")), encoding="utf-8")
    return page


def render(summary: Summary, records: Sequence[Record]) -> str:
    """Returns the page's HTML."""
    begun = next((record for record in records if isinstance(record, Begun)), None)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(ms=_milliseconds, seconds=_seconds, share=share, loaded=loaded, span=span, clock=timechart.clock)
    return environment.get_template(PAGE).render(
        run=summary,
        meaning=_MEANINGS[summary.verdict],
        replay=replay(summary, begun),
        tiles=tiles(summary),
        chart=timechart.chart(summary),
        longest=_longest(summary),
        calls=list(concerned(summary, records)) if summary.violation else [],
        notes=[record for record in records if isinstance(record, Note)],
    )


def replay(summary: Summary, begun: Begun | None) -> str:
    """Returns the command that repeats the same faults. The nodes' behaviour then also depends on the machine."""
    if summary.profile == "mutant":
        return shlex.join(["bin/chaos", "mutants", *summary.command[-1:]])
    if summary.profile not in ("run", "long") or begun is None:
        return f"bin/chaos {summary.profile}"
    options = f"--minutes {begun.seconds / 60:g} --seed {summary.seed} --faults {','.join(begun.faults)} --net {begun.net}"
    return f"bin/chaos {summary.profile} {options}"


def tiles(summary: Summary) -> list[Tile]:
    """Returns the figures at the top of the page."""
    aims, operations = summary.aims, summary.operations.values()
    asked, ok = sum(each.asked for each in operations), sum(each.ok for each in operations)
    served = aims.served
    return [
        Tile(
            f"{asked:,}", f"requests while {len(summary.faults)} faults came and went, {share(Share(asked, ok))} of them answered"
        ),
        Tile(
            share(served),
            f"answered by the other two with one node down, from 1 s on (aim: {aims.served_aim:.1%}); {quietly(aims)}",
            served.ok >= aims.served_aim * served.asked if served.asked else None,
        ),
        _time(aims.recovery, aims.recovery_aim, "at most until requests were answered as before"),
        _time(aims.convergence, aims.convergence_aim, "at most until the three replicas were the same"),
        Tile(f"{summary.final.reads:,}", f"reads at the end, of {summary.final.tokens:,} tokens, {len(summary.final.ways)} ways"),
    ]


def _time(seen: Spread | None, aim: float, words: str) -> Tile:
    if seen is None:
        return Tile("–", f"{words} (aim: {aim:g} s)")
    return Tile(_seconds(seen.most), f"{words} (aim: {aim:g} s; median: {_seconds(seen.median)})", seen.most <= aim)


def concerned(summary: Summary, records: Sequence[Record]) -> Iterator[Call]:
    """Yields the calls that a violation is about, in the order of their invokes, and the faults between first and last."""
    violation = summary.violation
    if violation is None:
        return
    ops, named = frozenset(violation.ops), frozenset(_NAMED.findall(violation.detail))
    calls = history.paired(records)
    waiting = set(ops)
    for record in records:
        match record:
            case Invoke(op=op) if op in ops:
                waiting.discard(op)
                yield _call(*calls[op], named, guilty=op == violation.op)
            case FaultBegan(number=number, words=words, at=at) if waiting != ops and waiting:
                yield Call(at, f"fault {number} begins: {words}")
            case FaultEnded(number=number, words=words, at=at) if waiting != ops and waiting:
                yield Call(at, f"fault {number} ends: {words}")


def _call(invoke: Invoke, complete: Complete | None, named: frozenset[str], *, guilty: bool) -> Call:
    answers = complete.answers if complete is not None and complete.outcome is Outcome.OK else ()
    answered = [*answers, *[None] * (len(invoke.given) - len(answers))]
    pairs = [
        Pair(given, ("collision" if answer is None else answer) if answers else None, bool(named & {given, answer}))
        for given, answer in zip(invoke.given, answered, strict=True)
    ]
    distinct = list(dict.fromkeys(pairs))
    shown = [pair for pair in distinct if pair.named] or distinct[:_PAIRS]
    return Call(invoke.at, "", invoke, complete, tuple(shown), len(distinct) - len(shown), guilty)


def _longest(summary: Summary) -> float:
    """Returns the scale of the bars that show recoveries, in seconds: at least the aim."""
    times = (seconds for fault in summary.faults for seconds in (fault.back_seconds, fault.calm_seconds))
    return max([summary.aims.recovery_aim, *filter(None, times)])


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.2f} s"


def _milliseconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1e3:.1f}"
