"""Runs the harness on builds that are broken on purpose. It must notice each, or it is blind to the defect of that mutant.

The mutants belong to the tests (tests/rigs/undone/). The module tests.rigs.broken lists them as JSON, and starts nodes in place
of the command ``quorumvault``. The package contains nothing broken, and this module imports none of the mutants.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from chaos import nemesis
from chaos.faults import missing
from chaos.nemesis import Kind
from chaos.network import on_loopback
from chaos.run import Options, Teller, run
from chaos.summary import Summary, Verdict
from chaos.testbed import history
from chaos.testbed.cluster import ClusterError
from chaos.testbed.history import Invoke
from chaos.testbed.host import private_mounts

_BROKEN = (sys.executable, "-P", "-m", "tests.rigs.broken")
_LIST_SECONDS = 60.0
_RATE = 25.0
#: The number of seeds to try before a mutant counts as surviving.
_SEEDS = 3
#: Rules that a node breaks which is only broken in some other way, as by an exception.
_ACCIDENTS = ("ended by itself", "contract", "not back")


class Mutant(msgspec.Struct, frozen=True):
    """A mutant. ``undoes``: the safety that it removes. ``faults``: the kinds or families of faults that expose it.

    ``by``: the rules that have to notice it, if it is not any of those that judge data and times.
    """

    name: str
    undoes: str
    faults: tuple[str, ...]
    by: tuple[str, ...] = ()


def known() -> list[Mutant]:
    """Returns the mutants that real processes can expose."""
    done = subprocess.run([*_BROKEN, "--list"], capture_output=True, timeout=_LIST_SECONDS, check=True)
    return msgspec.json.decode(done.stdout, type=list[Mutant])


def hunt(names: Sequence[str], seconds: float) -> int:
    """Prints by which rule each mutant was noticed, and when. ``names``: the mutants to try; empty means all.

    ``seconds``: the work of each run. Returns 1 if a mutant was not noticed, else 0. Raises ValueError for an unknown name.
    """
    mutants = known()
    if unknown := sorted(set(names) - {mutant.name for mutant in mutants}):
        raise ValueError(f"no such mutant: {', '.join(unknown)}; expected {', '.join(mutant.name for mutant in mutants)}")
    wanted = [mutant for mutant in mutants if not names or mutant.name in names]
    if any(Kind.FULL_DISK in nemesis.chosen(mutant.faults) for mutant in wanted):
        private_mounts()
    survivors, began = 0, time.monotonic()
    for mutant in wanted:
        at = time.monotonic()
        found, words = _first(mutant, seconds)
        survivors += not found
        print(f"{mutant.name:24}{words:52}{time.monotonic() - at:5.0f} s  {mutant.undoes}", flush=True)
    print(f"{len(wanted) - survivors} of {len(wanted)} mutants noticed, in {(time.monotonic() - began) / 60:.0f} minutes")
    return 1 if survivors else 0


def _first(mutant: Mutant, seconds: float) -> tuple[bool, str]:
    """Returns whether a run with some seed notices the mutant, and a line about it. A run that fails has not noticed it."""
    words = ""
    for seed in range(1, _SEEDS + 1):
        try:
            found, summary = noticed(mutant, seed, seconds)
        except ClusterError as error:
            words = f"; seed {seed} came to nothing: {str(error).splitlines()[0]}"
            continue
        if found is not None:
            return True, found
        words = ", the last on a machine too busy to judge it" if summary.too_busy else ""
    return False, f"survived {_SEEDS} runs{words}"


def noticed(mutant: Mutant, seed: int, seconds: float) -> tuple[str | None, Summary]:
    """Returns the rule by which the mutant was noticed, and after how many seconds, or None; and the run's summary."""
    with tempfile.TemporaryDirectory(prefix="quorumvault-chaos-mutant-") as name:
        report = Path(name)
        summary = break_nodes(mutant, seed, seconds, report)
        if summary.verdict is not Verdict.INVALID or summary.violation is None or not _counts(summary.violation.rule, mutant):
            return None, summary
        op = summary.violation.op
        at = next((r.at for r in history.read(report / "history.jsonl") if isinstance(r, Invoke) and r.op == op), None)
        when = "" if at is None else f", after {at:.1f} s"
        return f"seed {seed}: {summary.violation.rule}{when}", summary


def _counts(rule: str, mutant: Mutant) -> bool:
    return rule in mutant.by if mutant.by else rule not in _ACCIDENTS


def break_nodes(mutant: Mutant, seed: int, seconds: float, report: Path) -> Summary:
    """Runs the harness for ``seconds`` with this mutant in all three nodes."""
    asked = nemesis.chosen(mutant.faults)
    rejoins = not nemesis.JOINS.isdisjoint(asked)
    unavailable = missing(asked, "proxies", rejoins=rejoins)
    kinds = [kind for kind in asked if kind not in unavailable]
    plan = nemesis.plan(seed, seconds, kinds, nemesis.BRISK)
    options = Options(seed, "mutant", seconds, plan, kinds, _RATE, "proxies", report, (*_BROKEN, mutant.name), rejoins)
    return asyncio.run(run(options, on_loopback, {}, Teller()))
