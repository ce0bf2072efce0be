"""``quorumvault events``: merges the event logs of the nodes on this machine by time."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec

from quorumvault.cli.options import config_option
from quorumvault.cli.output import say, visible, visible_json
from quorumvault.config.cluster import load_cluster
from quorumvault.errors import ConfigError
from quorumvault.server.telemetry.event_log import FILE_NAME, Event
from quorumvault.server.telemetry.event_reader import Entry, EventReader

#: Seconds between two looks at the files with --follow.
_POLL_SECONDS = 0.25
_BEFORE_THE_REST = ("ts", "node", "event", "outcome")


@dataclass(frozen=True, slots=True)
class Filters:
    """The events to show. None, and empty ``kinds``, match all events."""

    request_id: str | None
    owner: str | None
    kinds: tuple[str, ...]

    def wants(self, event: Event) -> bool:
        return (
            self.request_id in (None, event.request_id)
            and self.owner in (None, event.owner)
            and (not self.kinds or event.event in self.kinds)
        )


@click.command(
    short_help="Show what the nodes did, in order of time.",
    epilog="""\b
Examples:
  quorumvault events --config vault/cluster.yaml -n 50
  quorumvault events --config vault/cluster.yaml --follow --owner clinic-a --kind detokenize""",
)
@config_option
@click.option("-n", "--lines", type=click.IntRange(min=0), default=20, show_default=True, help="Number of last events to show.")
@click.option("--follow", is_flag=True, help="Then show new events, until Ctrl-C.")
@click.option("--request-id", metavar="ID", help="Show only the request with this X-Request-ID in its answer.")
@click.option("--owner", metavar="NAME", help="Show only events of this owner.")
@click.option("--kind", "kinds", metavar="EVENT", multiple=True, help="Show only these events, such as tokenize. Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the lines as they are in the files: one JSON object each.")
def events(
    config: Path, lines: int, follow: bool, request_id: str | None, owner: str | None, kinds: tuple[str, ...], as_json: bool
) -> None:
    """Show the last events of all nodes whose data is on this machine, in order of time.

    Each line tells who asked for what, when, and how it ended, without values or tokens.
    """
    cluster = load_cluster(config)
    paths = [cluster.data_directory(node) / FILE_NAME for node in cluster.nodes]
    if not follow and not any(path.exists() for path in paths):
        raise ConfigError(cluster.data, "", f"no node has an event log here (n1/{FILE_NAME}, …): it has not run on this machine")
    filters = Filters(request_id, owner, kinds)
    show = _show_line if as_json else _show_text
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(contextlib.closing(EventReader(path))) for path in paths]
        last = last_of(readers, lines, filters)
        if follow:
            stack.enter_context(contextlib.suppress(KeyboardInterrupt))
            follow_all(readers, last, filters, show, time.sleep)
        else:
            for entry in last:
                show(entry)
            if not last:
                say("There is no such event.", err=True)


def last_of(readers: Iterable[EventReader], count: int, filters: Filters) -> list[Entry]:
    """Returns the last ``count`` events of all nodes together."""
    found = _by_time(entry for reader in readers for entry in reader.last(count, filters.wants))
    return found[len(found) - count :] if count < len(found) else found


def follow_all(
    readers: Iterable[EventReader],
    last: Iterable[Entry],
    filters: Filters,
    show: Callable[[Entry], None],
    sleep: Callable[[float], None],
) -> None:
    """Shows the ``last`` entries and then new ones, in order of time, until ``sleep`` raises.

    A node writes each line a little after the time in it. So each entry is held until the next look: by then the other nodes have
    written their earlier entries.
    """
    held = deque(last)
    try:
        while True:
            horizon = _time(held[-1]) if held else ""
            held = deque(_by_time([*held, *(entry for reader in readers for entry in reader.more(filters.wants))]))
            while held and _time(held[0]) <= horizon:
                show(held[0])
                held.popleft()
            sleep(_POLL_SECONDS)
    finally:
        for entry in held:
            show(entry)


def _by_time(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=_time)


def _time(entry: Entry) -> str:
    """Returns the time as RFC 3339 in UTC with microseconds, so that its order as text is its order in time."""
    return entry.event.ts


def _show_line(entry: Entry) -> None:
    say(visible_json(entry.line.decode().rstrip("\n")))


def _show_text(entry: Entry) -> None:
    fields = msgspec.structs.asdict(entry.event)
    words = [str(fields[name] or "-") for name in _BEFORE_THE_REST]
    words += [f"{name}={value}" for name, value in fields.items() if name not in _BEFORE_THE_REST and value is not None]
    say(visible(" ".join(words)))
