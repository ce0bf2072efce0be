"""``bin/bench healing``: a whole run on clusters of its own, its table, its figures as JSON, and an exit code."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench.healing import size
from bench.healing.figures import Away, HealingReport, Lost, Rotten, Size
from bench.healing.judging import findings, holds, judge, tables
from bench.healing.mending import Mending
from bench.healing.plan import AWAY, HEALING_PLANS, LOST, ROTTEN, SIZE, HealingPlan
from bench.http import LoadFailed
from bench.load import OWNER
from bench.processes import machine
from bench.table import show_all
from bench.work import WrongAnswer
from chaos.testbed.api import Unanswered
from chaos.testbed.cluster import Cluster, ClusterError

_LEAST_RECORDS = 1_000


def main(arguments: Sequence[str]) -> int:
    """``arguments`` begin with the name of the plan."""
    plan = HEALING_PLANS[arguments[0]]
    chosen = _parser(plan).parse_args(arguments[1:])
    plan = replace(plan, records=chosen.records, runs=tuple(chosen.only or plan.runs), load=chosen.load / 100)
    try:
        report = measure(plan, chosen.directory, _tell)
    except (ClusterError, LoadFailed, Unanswered, WrongAnswer, OSError) as error:
        print(f"bin/bench {plan.name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"bin/bench {plan.name}: interrupted; nothing was written", file=sys.stderr)
        return 130
    if chosen.json is not None:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    show_all(tables(report, timed=plan.timed), findings(report), sys.stdout)
    return 0 if holds(judge(report), timed=plan.timed) else 1


def measure(plan: HealingPlan, directory: Path | None, tell: Callable[[str], None]) -> HealingReport:
    """Runs a plan in a temporary directory of ``directory``. Raises ClusterError, LoadFailed, Unanswered, WrongAnswer."""
    found: dict[str, Away | Lost | Rotten | Size] = {}
    with tempfile.TemporaryDirectory(prefix="quorumvault-healing-", dir=directory) as place:
        for name in plan.runs:
            found[name] = _run(name, Path(place) / name, plan, tell)
    return msgspec.structs.replace(HealingReport(f"{datetime.now(UTC):%Y-%m-%d}", machine(), plan.name, plan.records), **found)


def _run(name: str, directory: Path, plan: HealingPlan, tell: Callable[[str], None]) -> Away | Lost | Rotten | Size:
    """On a cluster of its own, which is deleted afterwards."""
    directory.mkdir()
    try:
        if name == SIZE:
            return size.measure(directory, plan, tell)
        with size.filled(directory / "cluster", plan.records, tell, lambda where: Cluster.create(where, (OWNER,))) as vault:
            mending = Mending(vault, plan, tell)
            runs: dict[str, Callable[[], Away | Lost | Rotten]] = {AWAY: mending.away, LOST: mending.lost, ROTTEN: mending.rotten}
            return runs[name]()
    finally:
        shutil.rmtree(directory)


def _parser(plan: HealingPlan) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"bin/bench {plan.name}", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--records", type=_records, default=plan.records, metavar="N", help=f"a node, to begin with (default: {plan.records:,})"
    )
    parser.add_argument(
        "--only", action="append", choices=plan.runs, help="this run alone, of those of the plan; may be repeated"
    )
    parser.add_argument(
        "--load",
        type=_percent,
        default=round(plan.load * 100),
        metavar="PERCENT",
        help=f"of what the cluster can do, while a node is broken (default: {plan.load:.0%})".replace("%", "%%"),
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--directory", type=Path, help="where the nodes keep their data (default: the temporary directory)")
    return parser


def _records(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < _LEAST_RECORDS:
        raise argparse.ArgumentTypeError(f"expected {_LEAST_RECORDS:,} or more")
    return int(text)


def _percent(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError("expected a whole number from 1 to 100")
    return int(text)


def _tell(doing: str) -> None:
    """What is going on, for whoever watches; a file that is written to gets none of it."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{doing}", end="", file=sys.stderr, flush=True)
