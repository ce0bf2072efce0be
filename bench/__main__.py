"""The command line of every benchmark: ``bin/bench [NAME] [OPTION ...]``."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench import figures, notfound, overload, plot, requests, revocation, tls
from bench.files import report as files
from bench.files.child import CommandFailed
from bench.files.plan import FILES_PLANS
from bench.files.run import WrongCopy
from bench.floor import FloorBroken
from bench.growth import measure as growth
from bench.growth import plot as growth_plot
from bench.growth.plan import AXES, GROWTH_PLANS
from bench.healing import command as healing
from bench.healing.plan import HEALING_PLANS, RUNS
from bench.http import LoadFailed
from bench.plan import FULL, PLANS
from bench.postgres import measure as postgres
from bench.postgres.database import PostgresError
from bench.postgres.plan import PARTS, POSTGRES_PLANS
from bench.report import MarksMissing, Report, Tell, markdown, replace_section, show
from bench.work import WrongAnswer
from chaos.testbed.api import Unanswered
from chaos.testbed.cluster import ClusterError

RESULTS = Path(__file__).parent / "results"
_FAILURES = (
    *(ClusterError, Unanswered, CommandFailed, LoadFailed, WrongAnswer, WrongCopy, FloorBroken, PostgresError),
    *(MarksMissing, OSError),
)

_EXAMPLES = """names:
  full             about ten minutes: three nodes, compared with a floor
  smoke            half a minute; exit code 1 if a ratio to the floor exceeds its bound
  files            half an hour: whole files, compared with DuckDB alone, 10 and 20 million rows
  files-smoke      the same with small files; exit code 1 if a look-up is made twice; its times mean nothing
  overload         load of three times the cluster's capacity; exit code 1 if the cluster does not withstand it
  notfound         ten minutes: whether the time of a "not found" reveals its reason; exit code 1 if it does
  requests         half a minute: CPU of one small request in a node's HTTP half, without a socket or a vault
  revocation       four minutes: how long nodes accept a revoked API key; exit code 1 if one does for more than two seconds
  tls              two minutes: the API over TLS, compared with plain HTTP; exit code 1 if batches cost a tenth more
  healing          six minutes: a node is away, loses its disk, has corrupted tables, at a million records
  healing-large    eight minutes: start, memory, idle comparisons and new tokens at ten million records
  healing-smoke    both on small data; exit code 1 if a node does not heal; its times mean nothing
  postgres         ten minutes: compared with the same API over PostgreSQL with quorum commit, at two million records
  postgres-smoke   half a minute: the same on small data; its times mean nothing
  growth           half an hour: more records, owners or clients, or longer values; --only selects one of these
  growth-smoke     half a minute: the same on small data; its times mean nothing
"""


class Family(NamedTuple):
    """Plans that are measured alike. ``section``: the writer named in a document's marks; None for no section."""

    plans: Collection[Any]
    measure: Callable[[Any, Path, Tell], Report]
    section: str | None = None
    draw: Callable[[Any], str] | None = None


FAMILIES = (
    Family(PLANS.values(), figures.run, "bin/bench", plot.draw),
    Family(FILES_PLANS.values(), files.measure, "bin/bench files"),
    Family(HEALING_PLANS.values(), healing.measure),
    Family(POSTGRES_PLANS.values(), postgres.measure, "bin/bench postgres"),
    Family(GROWTH_PLANS.values(), growth.measure, "bin/bench growth", growth_plot.draw),
    Family([notfound.NotFoundPlan()], notfound.run, "bin/bench notfound"),
    Family([overload.OverloadPlan()], overload.run),
    Family([requests.RequestsPlan()], requests.run),
    Family([revocation.RevocationPlan()], revocation.run, "bin/bench revocation"),
    Family([tls.TlsPlan()], tls.run, "bin/bench tls"),
)
#: The plan of each name, and the family that measures it.
BENCHES: dict[str, tuple[Any, Family]] = {plan.name: (plan, family) for family in FAMILIES for plan in family.plans}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0; 1 if the run failed or missed an asserted target; or 130 if it was interrupted."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    plan, family = _chosen(parser, chosen)
    try:
        if chosen.write is not None:
            _document(chosen.write, family, "")  # fails before the run's minutes, not after
        with tempfile.TemporaryDirectory(prefix="quorumvault-bench-", dir=chosen.directory) as place, _progress() as tell:
            report = family.measure(plan, Path(place), tell)
        account = report.account()
        show(account, sys.stdout)
        _save(report, chosen, family)
    except _FAILURES as error:
        print(f"bin/bench {plan.name}: {error}", *getattr(error, "__notes__", ()), sep="\n  ", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"bin/bench {plan.name}: interrupted; nothing was written", file=sys.stderr)
        return 130
    return 1 if account.asserted and not account.holds else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/bench",
        description="Start three nodes, measure them, and stop them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("name", nargs="?", choices=sorted(BENCHES), default=FULL.name, metavar="NAME", help="what to measure (default: full)")
    add("--json", type=Path, metavar="FILE", help="write the figures to this file")
    add("--svg", type=Path, metavar="FILE", help="draw the figures into this file")
    add(
        "--write", type=Path, metavar="FILE.md", help="put the tables between the marks of this file, figures into bench/results/"
    )
    add("--directory", type=Path, help="where the nodes keep their data (default: the system's temporary directory)")
    of_plans = parser.add_argument_group("settings of a plan, where it has them", argument_default=argparse.SUPPRESS)
    add = of_plans.add_argument
    add("--repetitions", type=_number(1), metavar="N", help="repetitions of each measurement")
    add("--records", type=_number(1_000), metavar="N", help="records of a node at the start")
    add("--only", dest="runs", action="append", choices=(*RUNS, *PARTS, *AXES), help="only this run of the plan; repeatable")
    add("--load", type=_percent, metavar="PERCENT", help="load while a node is broken, in percent of the cluster's capacity")
    add("--inputs", type=_number(10), metavar="N", help="requests of each kind and shape")
    add("--seed", type=int, metavar="N", help="seed of the order")
    add("--times", type=float, metavar="N", help="overload, as a multiple of capacity")
    add("--seconds", type=float, metavar="S", help="seconds of each phase")
    return parser


def _chosen(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> tuple[Any, Family]:
    """Returns the plan with the changes from the command line. Ends with exit code 2 if the plan has no such setting."""
    plan, family = BENCHES[chosen.name]
    given = {name: value for name, value in vars(chosen).items() if name not in ("name", "json", "svg", "write", "directory")}
    if missing := [name for name in given if not hasattr(plan, name)]:
        parser.error(f"{chosen.name} has no {' and no '.join(missing)}")
    if wrong := set(given.get("runs", ())) - set(getattr(plan, "runs", ())):
        parser.error(f"{chosen.name} has no run {' and no run '.join(sorted(wrong))}")
    if chosen.svg is not None and family.draw is None:
        parser.error(f"there is no picture of {chosen.name}")
    if chosen.write is not None and family.section is None:
        parser.error(f"{chosen.name} has no section in a document")
    if "runs" in given:
        given["runs"] = tuple(given["runs"])
    return replace(plan, **given), family


def _number(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected {least:,} or more")
        return int(text)

    return number


def _percent(text: str) -> float:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError("expected a whole number from 1 to 100")
    return int(text) / 100


@contextmanager
def _progress() -> Iterator[Tell]:
    """Yields a progress bar on standard error, if that is a terminal. It has no thread, whose CPU would count as the floor's."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console, hidden = Console(stderr=True), not sys.stderr.isatty()
    with Progress(*columns, console=console, auto_refresh=False, transient=True, disable=hidden) as bar:
        task = bar.add_task("", total=1.0)

        def tell(doing: str, done: float = 0.0) -> None:
            bar.update(task, description=doing, completed=done, refresh=True)

        yield tell


def _save(report: Report, chosen: argparse.Namespace, family: Family) -> None:
    """Writes the requested files. A section in a document comes with the figures, and with a picture if there is one."""
    figures_file, picture = chosen.json, chosen.svg
    if chosen.write is not None:
        figures_file = figures_file or RESULTS / f"{chosen.name}.json"
        if figures_file.exists():
            report = report.joined(figures_file.read_bytes())
        picture = picture or (None if family.draw is None else RESULTS / f"{chosen.name}.svg")
        link = None if picture is None else os.path.relpath(picture, chosen.write.parent)
        chosen.write.write_text(_document(chosen.write, family, markdown(report.account(), link)))
    if figures_file is not None:
        report.write_json(figures_file)
    if picture is not None and family.draw is not None:
        picture.write_text(family.draw(report))


def _document(path: Path, family: Family, section: str) -> str:
    """Returns the document's text with this section. Raises MarksMissing."""
    try:
        return replace_section(path.read_text(), str(family.section), section)
    except MarksMissing as error:
        raise MarksMissing(f"{path}: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
