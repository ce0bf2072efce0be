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

from bench.checks import judge
from bench.floor import Floor, FloorBroken
from bench.http import LoadFailed
from bench.load import Load, start
from bench.measure import Bench
from bench.plan import PLANS, SMOKE, Plan
from bench.plot import draw
from bench.processes import machine
from bench.report import Report, summarise
from bench.table import MarksMissing, markdown, replace_section, show
from bench.work import WrongAnswer
from chaos.cluster import ClusterError

_EXAMPLES = """examples:
  bin/bench                               about ten minutes; tables, and how they stand to the targets
  bin/bench smoke                         half a minute; exit code 1 if a ratio to the floor is out of its bound
  bin/bench --write docs/benchmarks.md    the tables into that file, a plot and the figures as JSON beside it
"""


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    plan = PLANS[chosen.plan]
    if chosen.repetitions is not None:
        plan = replace(plan, repetitions=chosen.repetitions)
    try:
        if chosen.write is not None:
            _with_section(chosen.write, "")  # before the minutes, not after them
        report = _measure(plan, chosen.directory)
        show(report, sys.stdout)
        _save(report, chosen.json, chosen.svg, chosen.write)
    except (ClusterError, LoadFailed, WrongAnswer, FloorBroken, MarksMissing, OSError) as error:
        print(f"bin/bench: {error}", *getattr(error, "__notes__", ()), sep="\n  ", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bin/bench: interrupted; nothing was written", file=sys.stderr)
        return 130
    return _exit_code(report) if plan.name == SMOKE.name else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/bench",
        description="Starts three nodes, measures them beside a floor, and stops them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("plan", nargs="?", choices=sorted(PLANS), default="full", help="what is measured (default: full)")
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
        figures.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    if picture is not None:
        picture.write_text(draw(report))


def _with_section(path: Path, section: str) -> str:
    try:
        return replace_section(path.read_text(), section)
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
