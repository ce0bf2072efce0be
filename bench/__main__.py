"""The command line of ``bin/bench``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench import notfound, overload
from bench.checks import judge
from bench.files import command
from bench.files import report as files_report
from bench.files.child import CommandFailed
from bench.files.plan import FILES, FILES_PLANS
from bench.files.report import FilesReport
from bench.files.run import WrongCopy
from bench.floor import Floor, FloorBroken
from bench.healing import command as healing
from bench.healing.plan import HEALING_PLANS
from bench.http import LoadFailed
from bench.load import Load, start
from bench.measure import Bench
from bench.plan import PLANS, SMOKE, Plan
from bench.plot import draw
from bench.processes import machine
from bench.report import Report, summarise
from bench.table import BEGIN, END, MarksMissing, as_list, as_markdown, markdown, replace_section, show, show_all
from bench.work import WrongAnswer
from chaos.testbed.cluster import ClusterError

#: Where the figures of files go in a document.
FILES_MARKS = ("<!-- bin/bench files writes from here -->", "<!-- bin/bench files writes up to here -->")

_EXAMPLES = """examples:
  bin/bench                               about ten minutes; tables, and how they stand to the targets
  bin/bench smoke                         half a minute; exit code 1 if a ratio to the floor is out of its bound
  bin/bench files                         half an hour: whole files beside DuckDB alone, 10 and 20 million rows
  bin/bench files-smoke                   the same with small files; exit code 1 if a look-up is made twice; its times say nothing
  bin/bench --write docs/benchmarks.md    the tables into that file, a plot and the figures as JSON beside it
  bin/bench overload                      three times the load that the cluster can take; exit code 1 if it does not hold up
  bin/bench notfound                      ten minutes: does the time of a "not found" tell why; exit code 1 if it does
  bin/bench healing                       six minutes: a node is away, loses its disk, has rotten tables, at a million records
  bin/bench healing-large                 eight minutes: start, memory, idle comparisons, new tokens among ten million records
  bin/bench healing-smoke                 both on small data; exit code 1 if a node does not heal; its times say nothing
"""


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["overload"]:
        return overload.main(arguments[1:])
    if arguments[:1] == ["notfound"]:
        return notfound.main(arguments[1:])
    if arguments and arguments[0] in HEALING_PLANS:
        return healing.main(arguments)
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.plan in FILES_PLANS and chosen.svg is not None:
        parser.error("there is no picture of files")
    try:
        return _run_files(chosen) if chosen.plan in FILES_PLANS else _run_vault(chosen)
    except (ClusterError, CommandFailed, LoadFailed, WrongAnswer, WrongCopy, FloorBroken, MarksMissing, OSError) as error:
        print(f"bin/bench: {error}", *getattr(error, "__notes__", ()), sep="\n  ", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bin/bench: interrupted; nothing was written", file=sys.stderr)
        return 130


def _run_vault(chosen: argparse.Namespace) -> int:
    plan = PLANS[chosen.plan]
    if chosen.repetitions is not None:
        plan = replace(plan, repetitions=chosen.repetitions)
    if chosen.write is not None:
        _with_section(chosen.write, "")  # before the minutes, not after them
    report = _measure(plan, chosen.directory)
    show(report, sys.stdout)
    _save(report, chosen.json, chosen.svg, chosen.write)
    return _exit_code(report) if plan.name == SMOKE.name else 0


def _run_files(chosen: argparse.Namespace) -> int:
    plan = FILES_PLANS[chosen.plan]
    if chosen.repetitions is not None:
        plan = replace(plan, repetitions=chosen.repetitions)
    if chosen.write is not None:
        _with_section(chosen.write, "", FILES_MARKS)
    with _progress() as tell:
        report = command.measure(plan, chosen.directory, lambda doing: tell(doing, 0.0))
    show_all(files_report.tables(report), files_report.findings(report), sys.stdout)
    figures = chosen.json
    if chosen.write is not None:
        section = [as_list(files_report.findings(report)), *map(as_markdown, files_report.tables(report))]
        chosen.write.write_text(_with_section(chosen.write, "\n\n".join(section), FILES_MARKS))
        figures = figures or chosen.write.with_name(f"{chosen.write.stem}-files.json")
    if figures is not None:
        _write_json(report, figures)
    return 0 if plan.name == FILES.name or files_report.holds(report) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/bench",
        description="Starts three nodes, measures them beside a floor, and stops them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "plan", nargs="?", choices=sorted([*PLANS, *FILES_PLANS]), default="full", help="what is measured (default: full)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw them there")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="put the tables between the marks of that file")
    parser.add_argument("--repetitions", type=_positive, metavar="N", help="of each measurement (default: the plan's, 3)")
    parser.add_argument(
        "--directory",
        type=Path,
        help="where the nodes keep their data: the disk that is synced (default: the system's temporary directory)",
    )
    return parser


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return int(text)


def _measure(plan: Plan, directory: Path | None) -> Report:
    with (
        tempfile.TemporaryDirectory(prefix="quorumvault-bench-", dir=directory) as place,
        start(Path(place) / "cluster") as cluster,
        closing(Floor(Path(place) / "floor")) as floor,
        _progress() as tell,
    ):
        samples = Bench(Load(cluster), floor, plan, tell).run()
        cluster.stop()
    made = f"{datetime.now(UTC):%Y-%m-%d}"
    return summarise(samples, made=made, machine=machine(), plan=plan.name, repetitions=plan.repetitions)


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """A bar on standard error, if that is a terminal. It has no thread of its own: that would be charged to the floor."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console, hidden = Console(stderr=True), not sys.stderr.isatty()
    with Progress(*columns, console=console, auto_refresh=False, transient=True, disable=hidden) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda doing, done: bar.update(task, description=doing, completed=done, refresh=True)


def _save(report: Report, figures: Path | None, picture: Path | None, text: Path | None) -> None:
    """Writes what was asked for. Beside a Markdown file come a picture and figures of the same name."""
    if text is not None:
        text.write_text(_with_section(text, markdown(report, text.with_suffix(".svg").name)))
        figures, picture = figures or text.with_suffix(".json"), picture or text.with_suffix(".svg")
    if figures is not None:
        _write_json(report, figures)
    if picture is not None:
        picture.write_text(draw(report))


def _write_json(report: Report | FilesReport, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")


def _with_section(path: Path, section: str, marks: tuple[str, str] = (BEGIN, END)) -> str:
    try:
        return replace_section(path.read_text(), section, marks)
    except MarksMissing as error:
        raise MarksMissing(f"{path}: {error}") from None


def _exit_code(report: Report) -> int:
    """Of a smoke run: 1 if a bound was passed. Tells each of them."""
    verdicts = judge(report)
    for verdict in verdicts:
        print(f"{'ok' if verdict.held else 'FAILED'}: {verdict.text}")
    return 0 if all(verdict.held for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
