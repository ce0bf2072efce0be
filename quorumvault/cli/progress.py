"""Shows the progress of a file on a terminal: rows, rows a second, time left; and below these the nodes that do not answer.

A command loads this module only if standard error is a terminal.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from quorumvault.cli.output import visible
from quorumvault.client import Trouble
from quorumvault.files import job


class _Rate(ProgressColumn):
    """Rows a second since the start of this run: over the last moments, the rate would jump with each batch."""

    def render(self, task: Task) -> Text:
        rows, seconds = task.fields["rows"] - task.fields["kept"], task.elapsed
        return Text(f"{rows / seconds:,.0f} rows/s" if rows and seconds else "")


class _Bar(Progress):
    """A bar, with a line below it that says what the client waits for."""

    trouble: Callable[[], Trouble] | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        words = "" if self.trouble is None else words_of(self.trouble())
        if words:
            yield Text(words, style="yellow")


def words_of(trouble: Trouble) -> str:
    """Returns the nodes that last failed to answer, and how long the client still tries; an empty text if there are none."""
    nodes: dict[str, list[str]] = {}
    for node, outcome in trouble.nodes:
        nodes.setdefault(outcome, []).append(visible(node))
    words = "; ".join(f"{', '.join(named)}: {visible(outcome)}" for outcome, named in nodes.items())
    if words and trouble.seconds_left is not None:
        words += f"; goes on trying for {math.ceil(trouble.seconds_left)} s"
    return words


@contextlib.contextmanager
def progress_bar(total: int | None, trouble: Callable[[], Trouble]) -> Iterator[job.Progress]:
    """Yields a function to call with the progress. ``total`` is in bytes, None if unknown. The bar disappears at the end."""
    rows = TextColumn("{task.fields[rows]:,} rows")
    if total is None:
        columns: tuple[ProgressColumn, ...] = (rows, _Rate(), TimeElapsedColumn())
    else:
        columns = (rows, BarColumn(), TaskProgressColumn(), _Rate(), TimeRemainingColumn(), TextColumn("left"))
    with _Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.trouble = trouble
        task = bar.add_task("", total=total, rows=0, kept=0)
        yield lambda done: bar.update(task, completed=done.size, rows=done.rows, kept=done.kept)
