"""``quorumvault status``, ``wait`` and ``rotate``: what an operator asks a running cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import click
import msgspec

from quorumvault.cli.main import NO_QUORUM
from quorumvault.cli.options import Connection, connection_options, json_option
from quorumvault.cli.output import print_json, print_table
from quorumvault.client import NodeHealth
from quorumvault.errors import NoQuorum

#: Between two looks at a node that is not ready.
_POLL_SECONDS = 0.1


@click.command(epilog="\b\nExample:\n  quorumvault status --url http://10.0.0.1:8700 --url http://10.0.0.2:8700")
@connection_options
@json_option
def status(connection: Connection, as_json: bool) -> int:
    """Show how each node sees itself and its peers. Exit 3 if none of them can serve requests."""
    with connection.open() as client:
        healths = client.health()
    if as_json:
        print_json({"quorum": any(map(is_ready, healths)), "nodes": [_answer(health) for health in healths]})
    else:
        print_table(["url", "node", "status", "state", "reachable", "peers", "version"], [_row(health) for health in healths])
        for health in healths:
            for warning in health.report.warnings if health.report else ():
                click.echo(f"{health.url}: {warning}")
    return 0 if any(map(is_ready, healths)) else NO_QUORUM


def is_ready(health: NodeHealth) -> bool:
    """Whether the node takes requests and reaches a quorum."""
    report = health.report
    return report is not None and report.status in ("ok", "degraded") and report.state != "draining"


def _row(health: NodeHealth) -> list[str]:
    report = health.report
    if report is None:
        return [health.url, "", health.problem or "no answer", "", "", "", ""]
    peers = ", ".join(f"{node} {peer.status}" + (f" ({peer.state})" if peer.state else "") for node, peer in report.peers.items())
    quorum = f"{report.quorum.reachable} ({report.quorum.needed} needed)"
    return [health.url, report.node, report.status, report.state, quorum, peers, report.version]


def _answer(health: NodeHealth) -> dict[str, object]:
    return {"url": health.url, "health": msgspec.to_builtins(health.report), "problem": health.problem}


@click.command(
    epilog="\b\nExample:\n  quorumvault wait --ready --timeout 60 --url http://10.0.0.1:8700 --url http://10.0.0.2:8700"
)
@connection_options
@click.option("--ready", is_flag=True, required=True, help="Wait until every node named by --url serves requests.")
@click.option("--timeout", type=click.FloatRange(min=0), default=30.0, show_default=True, metavar="SECONDS", help="Then exit 3.")
@json_option
def wait(connection: Connection, ready: bool, timeout: float, as_json: bool) -> None:
    """Wait until all the nodes asked are ready."""
    if not ready:
        raise click.UsageError("say what to wait for: --ready")
    with connection.open() as client:
        healths = wait_until_ready(client.health, timeout, clock=time.monotonic, sleep=time.sleep)
    if as_json:
        print_json({"ready": True, "nodes": [_answer(health) for health in healths]})
    else:
        click.echo(f"ready: {', '.join(health.url for health in healths)}")


def wait_until_ready(
    ask: Callable[[], Sequence[NodeHealth]], timeout: float, *, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Sequence[NodeHealth]:
    """Ask until all are ready, and return their last answers. After ``timeout`` seconds: NoQuorum, which names the others."""
    end = clock() + timeout
    while not all(map(is_ready, healths := ask())):
        if clock() >= end:
            late = "; ".join(f"{health.url}: {_why(health)}" for health in healths if not is_ready(health))
            raise NoQuorum(f"not ready after {timeout:g} s: {late}")
        sleep(_POLL_SECONDS)
    return healths


def _why(health: NodeHealth) -> str:
    if health.report is None:
        return health.problem or "no answer"
    return f"{health.report.status}, {health.report.state}, reaches {health.report.quorum.reachable} nodes"


@click.command(epilog="\b\nExample:\n  quorumvault rotate --from 1")
@connection_options
@click.option("--from", "from_epoch", type=click.IntRange(min=1), required=True, metavar="E", help="The epoch to leave behind.")
@json_option
def rotate(connection: Connection, from_epoch: int, as_json: bool) -> None:
    """Leave epoch E behind: new tokens are of the next epoch, old ones go on to resolve.

    Saying it twice changes nothing. The API key must be allowed to rotate.
    """
    with connection.open() as client:
        active = client.rotate(from_epoch)
    if as_json:
        print_json({"active_epoch": active})
    else:
        click.echo(f"The active epoch is {active}.")
