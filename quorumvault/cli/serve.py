"""``quorumvault serve``: runs one node in the foreground."""

import signal
import sys
import time
from pathlib import Path

import click

from quorumvault.cli.logs import log_to_stderr
from quorumvault.cli.options import config_option, node_option
from quorumvault.cli.output import say, visible
from quorumvault.cli.process import expect_batches, stop_with, take_descriptors
from quorumvault.config.cluster import LOG_LEVELS, load_place, with_secret
from quorumvault.errors import Unavailable

#: Exit code: something that the node needs was not there in time, and starting again may help.
NOT_THERE = 4


@click.command(short_help="Run one node.", epilog="\b\nExample:\n  quorumvault serve --config vault/cluster.yaml --node n1")
@config_option
@node_option
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    envvar="QUORUMVAULT_LOG_LEVEL",
    help="Level of the logs. Default: QUORUMVAULT_LOG_LEVEL, then log_level of the configuration.",
)
@click.option("--json", "as_json", is_flag=True, help="Log JSON objects, one per line.")
@click.option("--parent", type=int, hidden=True, help="Stop when this process ends.")
def serve(config: Path, node: str, log_level: str | None, as_json: bool, parent: int | None) -> int:
    """Run one node until SIGTERM or Ctrl-C, then complete the requests under way and stop.

    Logs go to stderr. On SIGHUP the node reloads the API keys, its peers' addresses and the certificates. Exit codes: 0 stopped
    as asked, 1 configuration error, 3 storage failure, 4 a host name, an address or the master secret was not available in time.
    """
    import uvloop

    from quorumvault.server.node.addresses import await_addresses
    from quorumvault.server.node.node import serve as serve_node

    # Start-up reads all files anyway; the node handles SIGHUP once it runs. Not SIG_IGN, which children inherit.
    signal.signal(signal.SIGHUP, lambda number, frame: None)
    # Before the node handles these signals too, no request is under way.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda number, frame: sys.exit(0))
    if parent is not None:
        stop_with(parent)
    place = load_place(config, node)
    place.require_guarded()
    log_to_stderr(node, log_level or place.cluster.log_level, as_json=as_json)
    try:
        await_addresses(place, time.monotonic, time.sleep)
        (settings,) = with_secret(place)
    except Unavailable as error:
        say(f"quorumvault: {visible(str(error))}", err=True)
        return NOT_THERE
    take_descriptors(settings.cluster)
    expect_batches()
    return uvloop.run(serve_node(settings))
