"""Tellers print the progress of a run, line by line, or as a story with reasons."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from chaos.nemesis import Fault, Kind
from chaos.run import Options, Teller
from chaos.summary import CONFIDENCE, Aims, Load, Share, Spread, Summary, Verdict
from chaos.testbed.history import Outcome
from chaos.testbed.narration import ClaimFailed, Narrator

#: The behaviour to expect under each kind of fault.
_REASONS = {
    Kind.KILL: "What it acknowledged is synced on two disks. The two others serve on.",
    Kind.KILL_IN_MID_REQUEST: "What became of its requests, nobody knows: each is written down as unknown, not as failed.",
    Kind.KILL_STARTING: "A node may die at any instant, also in the midst of its start.",
    Kind.KILL_ALL: "With them goes what they had not synced. What was acknowledged has to be there afterwards.",
    Kind.PAUSE: "It takes connections and answers nothing. The others wait 50 ms for it at most, then they ask the third.",
    Kind.CUT_OFF: "It runs, and cannot know what the two others agree on: it has to refuse rather than say 'not found'.",
    Kind.ONE_WAY: "What it says is heard and it hears nothing, or the other way round: a half-open network.",
    Kind.ONE_TO_ONE: "Each of the two still reaches the third, so that all three serve.",
    Kind.SLOW_LINKS: "Late answers count only for the round that asked.",
    Kind.LOSSY_LINKS: "Connections break, and are made anew.",
    Kind.REPEATED_BYTES: "A frame that is not the next one ends the connection.",
    Kind.FULL_DISK: "The first write that fails ends the process, exit code 3, before anything else is acknowledged.",
    Kind.FAILING_SYNCS: "A sync that failed may have kept anything: the process ends, exit code 3.",
    Kind.SLOW_SYNCS: "Two quick disks are enough.",
    Kind.FLIPPED_TABLE: "A block that is rotten is not absent: the two others decide, or the node stops.",
    Kind.FLIPPED_LOG: "A log that is damaged is not opened.",
    Kind.TORN_LOG: "The end of a write that nobody was told of: it is dropped, or the node stops.",
    Kind.DISK_GONE: "It serves through the two others and votes on nothing: its 'absent' would be a lie.",
    Kind.FEW_FILES: "What it cannot open is refused or waited for; without a file for its store it ends, exit code 3.",
    Kind.CLOCK_JUMP: "No decision looks at a clock that can be set.",
    Kind.REPLACED: "When it goes on it is nobody: its disk has been replaced. It has to stop by itself.",
    Kind.CRASH_IN_VIEW_CHANGE: "What is durable says how far it was. The joining disk has no vote before it has copied both.",
    Kind.DISKS_IN_TURN: "Each new disk has to have everything before it counts as one of two.",
}


class LineTeller(Teller):
    """Writes one line for each event to a stream."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def begins(self, options: Options, unavailable: Mapping[str, str]) -> None:
        self._print(
            f"seed {options.seed}: {options.seconds:g} s of work, {len(options.plan)} faults; history in {options.report}"
        )
        for kind, why in unavailable.items():
            self._print(f"no {kind}: {why}")

    def say(self, at: float, words: str) -> None:
        self._print(f"{at:7.1f} s  {words}")

    def began(self, at: float, fault: Fault, words: str) -> None:
        self.say(at, f"{fault.kind.label}: {words}")

    def ended(self, at: float, fault: Fault, counts: Mapping[Outcome, int]) -> None:
        self.say(at, f"{fault.kind.label} is over; meanwhile {_counted(counts)}")

    def ends(self, options: Options, summary: Summary, page: Path) -> None:
        for line in (*_figures(summary), f"{summary.verdict}: {'; '.join(summary.reasons) or 'no rule was broken'}"):
            self._print(line)
        if summary.verdict is not Verdict.VALID:
            self._print(f"once more: {again(options)}")
        self._print(str(page))

    def _print(self, line: str) -> None:
        print(line, file=self._out, flush=True)


class NarratingTeller(Teller):
    """Tells a person who watches about each fault and its visible effects."""

    def __init__(self, out: TextIO) -> None:
        self._tell = Narrator(out)

    def begins(self, options: Options, unavailable: Mapping[str, str]) -> None:
        self._tell.step("Three nodes start, each a process of its own, and clients begin to ask all of them at once")
        for kind, why in unavailable.items():
            self._tell.say(f"Not shown here: {kind}. {why[:1].upper()}{why[1:]}.")

    def say(self, at: float, words: str) -> None:
        self._tell.say(f"{at:.0f} s: {words}")

    def began(self, at: float, fault: Fault, words: str) -> None:
        self._tell.step(words)
        self._tell.say(_REASONS[fault.kind])

    def ended(self, at: float, fault: Fault, counts: Mapping[Outcome, int]) -> None:
        self._tell.say(f"Mended at {at:.0f} s. Meanwhile {_counted(counts)}.")

    def ends(self, options: Options, summary: Summary, page: Path) -> None:
        self._tell.step("What the clients were told is judged")
        for line in _figures(summary):
            self._tell.say(line)
        reasons = "; ".join(summary.reasons)
        if summary.too_busy:
            self._tell.say(
                f"Nothing wrong was seen, and the machine was too busy with other things to judge everything: {reasons}"
            )
        else:
            self._claim(summary, reasons)
        self._tell.say(f"With pictures: {page}")

    def _claim(self, summary: Summary, reasons: str) -> None:
        asked = sum(operation.asked for operation in summary.operations.values())
        text = f"of {asked:,} requests none was answered wrongly, and whatever was acknowledged is there"
        try:
            self._tell.claim(text, summary.verdict is Verdict.VALID, f"{summary.verdict}: {reasons}")
        except ClaimFailed as failed:
            self._tell.failed(failed)


def again(options: Options) -> str:
    """Returns the command that makes the same plan again. The timing of requests depends on the machine."""
    if options.profile == "demo":
        return f"bin/chaos demo --net {options.net}"
    arguments: Sequence[str] = (
        *("--seed", str(options.seed), "--minutes", f"{options.seconds / 60:g}", "--net", options.net),
        *("--rate", f"{options.rate:g}", "--faults", ",".join(kind.label for kind in options.kinds)),
        *(() if options.rejoins else ("--lost-disks", "put-back")),
        *(("--node-command", " ".join(options.command)) if options.command else ()),
    )
    return f"bin/chaos {options.profile} {shlex.join(arguments)}"


def _counted(counts: Mapping[Outcome, int]) -> str:
    told = f"{counts[Outcome.OK]} requests were answered"
    return f"{told}, {counts[Outcome.FAIL]} refused, and of {counts[Outcome.UNKNOWN]} nothing is known"


def _figures(summary: Summary) -> Sequence[str]:
    asked = sum(operation.asked for operation in summary.operations.values())
    ok = sum(operation.ok for operation in summary.operations.values())
    lines = [f"{asked:,} requests, {ok:,} of them answered; {sum(summary.fault_counts.values())} faults"]
    aims = summary.aims
    if aims.served.asked:
        lines.append(
            f"with one node down or cut off, {share(aims.served)} of {aims.served.asked:,} requests through the two others were "
            f"answered (aim: {aims.served_aim:.1%}); {quietly(aims)}"
        )
    if aims.recovery is not None:
        lines.append(f"requests were answered as before {span(aims.recovery)}, after such a fault (aim: {aims.recovery_aim:g} s)")
    if aims.mending is not None:
        lines.append(f"disks had back what they had lost {span(aims.mending)}, after a fault (aim: {aims.mending_aim:g} s)")
    if aims.convergence is not None:
        late = f"; after {aims.overtaken} others the next fault came first" if aims.overtaken else ""
        lines.append(
            f"the replicas were the same {span(aims.convergence)}, after a fault (aim: {aims.convergence_aim:g} s){late}"
        )
        lines += [f"    after {kind}: {span(seen)}" for kind, seen in aims.convergence_by_kind.items()]
    if summary.machine is not None:
        lines.append(f"the machine: {loaded(summary.machine)}")
    lines.append(f"{summary.final.tokens:,} tokens were read back in {len(summary.final.ways)} ways")
    return lines


def share(of: Share) -> str:
    """Returns a share in per cent, never rounded up to 100 %."""
    if not of.asked:
        return "–"
    return "100 %" if of.ok == of.asked else f"{min(100 * of.ok / of.asked, 99.99):.2f} %"


def quietly(aims: Aims) -> str:
    """Says in words how certain the share served is, over the time when the machine was not busy with other things."""
    if not aims.quiet.asked:
        return "the machine was busy all that time"
    low, high = aims.between
    return f"on a quiet machine it is {low:.2%} to {high:.2%}, with {CONFIDENCE:.0%} confidence"


def span(of: Spread) -> str:
    return f"{of.least:.1f} to {of.most:.1f} s, {of.median:.1f} s at the median of {of.count}"


def loaded(machine: Load) -> str:
    """Says in words how busy the machine was, with whose work, and how late that made a process unrelated to the store."""
    late, load = machine.late, machine.load
    return (
        f"load average {load.least:.1f} to {load.most:.1f}; nodes and harness took {machine.ours.median:.0%} of the CPU, others "
        f"{machine.others.median:.0%} ({machine.others.least:.0%} to {machine.others.most:.0%}); the control probe was "
        f"{late.median * 1e3:.0f} ms late (up to {late.most * 1e3:.0f}); too busy to judge by times in {machine.busy} of "
        f"{late.count} s"
    )
