"""Shows the progress of a file on a terminal: rows, rows a second, time left. Loaded only if standard error is a terminal."""

import contextlib
from collections.abc import Iterator

from rich.console import Console
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

from quorumvault.files import job


class _Rate(ProgressColumn):
    """Rows a second since the start: over the last moments it would jump, since batches are some moments long."""

    def render(self, task: Task) -> Text:
        rows, seconds = task.fields["rows"], task.elapsed
        return Text(f"{rows / seconds:,.0f} rows/s" if rows and seconds else "")


@contextlib.contextmanager
def progress_bar(total: int | None) -> Iterator[job.Progress]:
    """Yield a function to call with rows and bytes done. ``total`` is in bytes; None if unknown. The bar vanishes at the end."""
    rows = TextColumn("{task.fields[rows]:,} rows")
    if total is None:
        columns: tuple[ProgressColumn, ...] = (rows, _Rate(), TimeElapsedColumn())
    else:
        columns = (rows, BarColumn(), TaskProgressColumn(), _Rate(), TimeRemainingColumn(), TextColumn("left"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total, rows=0)
        yield lambda rows, size: bar.update(task, advance=size, rows=rows)
