"""``quorumvault status``, ``wait``, ``epoch`` and ``rotate``: an operator's requests to a running cluster."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from quorumvault.cli import health
from quorumvault.cli.main import NO_QUORUM
from quorumvault.cli.options import Connection, connection_options, json_option
from quorumvault.cli.output import print_answer, print_json, print_table, say
from quorumvault.cli.watch import watch as watch_health
from quorumvault.client import NodeHealth
from quorumvault.errors import NoQuorum, Refused

#: Seconds between two looks at a node that is not ready.
_POLL_SECONDS = 0.1


@click.command(
    short_help="Show the state of the nodes.",
    epilog="""\b
Examples:
  quorumvault status --url https://10.0.0.1:8700 --url https://10.0.0.2:8700 --url https://10.0.0.3:8700
  quorumvault status --watch""",
)
@connection_options
@click.option(
    "--watch",
    is_flag=True,
    help="Repeat every second until Ctrl-C: redraw the table on a terminal; in a pipe, print a line for each node that changed.",
)
@json_option
def status(connection: Connection, watch: bool, as_json: bool) -> int:
    """Show what each node reports about itself and its peers, with warnings.

    Asks only the nodes named by --url. Exit 3 if none of them can serve requests.
    """
    with connection.open() as client:
        if watch:
            watch_health(client.health, as_json=as_json, now=lambda: datetime.now(UTC), sleep=time.sleep)
            return 0
        answers = client.health()
    if as_json:
        print_json(health.as_object(answers))
    elif sys.stdout.isatty():
        print_table(health.COLUMNS[:-1], [health.row(answer)[:-1] for answer in answers])
        for warning in health.warnings(answers):
            say(warning)
    else:
        print_table(health.COLUMNS, [health.row(answer) for answer in answers])
    if len(answers) == 1 and not as_json:
        say(f"Only {answers[0].url} was asked: name every node with --url, or in QUORUMVAULT_URL.", err=True)
    return 0 if any(map(health.is_ready, answers)) else NO_QUORUM


class _Seconds(click.FloatRange):
    """A range that refuses ``nan``, which click accepts in any range, and which no time exceeds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


@click.command(epilog="\b\nExample:\n  quorumvault wait --timeout 60 --url https://10.0.0.1:8700 --url https://10.0.0.2:8700")
@connection_options
@click.option("--ready", is_flag=True, help="Wait until every node named by --url serves requests. This is the default.")
@click.option(
    "--timeout", type=_Seconds(min=0), default=30.0, show_default=True, metavar="SECONDS", help="Exit 3 after this time."
)
@json_option
def wait(connection: Connection, ready: bool, timeout: float, as_json: bool) -> None:
    """Wait until all nodes named by --url are ready."""
    with connection.open() as client:
        answers = wait_until_ready(client.health, timeout, clock=time.monotonic, sleep=time.sleep)
    words = f"ready: {', '.join(answer.url for answer in answers)}"
    print_answer({"ready": True, **health.as_object(answers)}, words, as_json=as_json)


def wait_until_ready(
    ask: Callable[[], Sequence[NodeHealth]], timeout: float, *, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Sequence[NodeHealth]:
    """Asks until all nodes are ready, and returns their last answers. After ``timeout`` seconds, raises NoQuorum, which names
    the others."""
    end = clock() + timeout
    while not all(map(health.is_ready, answers := ask())):
        if clock() >= end:
            late = "; ".join(f"{each.url}: {health.why_not_ready(each)}" for each in answers if not health.is_ready(each))
            raise NoQuorum(f"not ready after {timeout:g} s: {late}")
        sleep(_POLL_SECONDS)
    return answers


@click.command(short_help="Show the active epoch.", epilog="\b\nExample:\n  quorumvault epoch")
@connection_options
@json_option
def epoch(connection: Connection, as_json: bool) -> None:
    """Show the active epoch of the API key's owner, to which new tokens belong."""
    with connection.open() as client:
        active = client.epoch()
    print_answer({"active_epoch": active}, str(active), as_json=as_json)


@click.command(short_help="Rotate to the next epoch.", epilog="\b\nExample:\n  quorumvault rotate --from 1")
@connection_options
@click.option(
    "--from",
    "from_epoch",
    type=click.IntRange(min=1),
    metavar="E",
    help="The epoch to leave. Without --from, show the active epoch and ask for confirmation on the terminal.",
)
@json_option
def rotate(connection: Connection, from_epoch: int | None, as_json: bool) -> None:
    """Rotate from epoch E to the next: new tokens belong to the next epoch, and old tokens still resolve.

    Repeating the command for the same epoch changes nothing. The API key must be allowed to rotate.
    """
    with connection.open() as client:
        active = client.rotate(from_epoch or _epoch_to_leave(client.epoch()))
    print_answer({"active_epoch": active}, f"The active epoch is {active}.", as_json=as_json)


def _epoch_to_leave(active: int) -> int:
    """Returns the active epoch if the user at the terminal agrees. Raises UsageError without a terminal, Refused for a no."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"the active epoch is {active}; to leave it behind: rotate --from {active}")
    if not click.confirm(
        f"The active epoch is {active}. Leave it behind, so that new tokens are of epoch {active + 1}?", err=True
    ):
        raise Refused(f"the active epoch is still {active}")
    return active
