"""``quorumvault status --watch``: shows the state of the nodes repeatedly, until Ctrl-C.

On a terminal it redraws one table. In a pipe it prints a line for each node that has changed since the last look, or with --json
an object whenever anything has changed.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from quorumvault.cli import health
from quorumvault.cli.output import print_json, print_row, table
from quorumvault.client import NodeHealth

#: Seconds between two looks.
_SECONDS = 1.0

Show = Callable[[Sequence[NodeHealth]], None]


def watch(
    ask: Callable[[], Sequence[NodeHealth]], *, as_json: bool, now: Callable[[], datetime], sleep: Callable[[float], None]
) -> None:
    """Asks the nodes and shows their answers, until it is interrupted."""
    with contextlib.suppress(KeyboardInterrupt), _display(as_json, now) as show:
        while True:
            show(ask())
            sleep(_SECONDS)


def _display(as_json: bool, now: Callable[[], datetime]) -> contextlib.AbstractContextManager[Show]:
    if as_json:
        return contextlib.nullcontext(_Objects(now))
    if sys.stdout.isatty():
        return _live(now)
    return contextlib.nullcontext(_Lines(now))


class _Lines:
    """Shows rows that have changed, each with the time at which the change was seen."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._shown: dict[str, tuple[str, ...]] = {}
        print_row(("time", *health.COLUMNS))

    def __call__(self, answers: Sequence[NodeHealth]) -> None:
        for answer in answers:
            row = health.row(answer)
            if row != self._shown.get(answer.url):
                self._shown[answer.url] = row
                print_row((_stamp(self._now()), *row))


class _Objects:
    """Shows the whole object when any part of it has changed."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._shown: dict[str, object] | None = None

    def __call__(self, answers: Sequence[NodeHealth]) -> None:
        answer = health.as_object(answers)
        if answer != self._shown:
            self._shown = answer
            print_json({"time": _stamp(self._now()), **answer})


@contextlib.contextmanager
def _live(now: Callable[[], datetime]) -> Iterator[Show]:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:

        def show(answers: Sequence[NodeHealth]) -> None:
            rows = table(health.COLUMNS[:-1], [health.row(answer)[:-1] for answer in answers])
            below = [*health.warnings(answers), f"{_stamp(now())}; Ctrl-C ends this"]
            live.update(Group(rows, "", *map(Text, below)), refresh=True)

        yield show


def _stamp(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
