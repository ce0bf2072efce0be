"""``quorumvault pack``: packs the files that one host needs into one file to carry there."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quorumvault.cli.destination import STANDARD, destination, output_options
from quorumvault.cli.options import json_option, node_options
from quorumvault.cli.output import print_answer, say, visible
from quorumvault.config.api_keys import load_keys
from quorumvault.config.cluster import NodePlace, load_place

if TYPE_CHECKING:
    from quorumvault.server.offline.pack import Packed

#: Seconds to wait for each node, since all may be down.
_PATIENCE = 0.5


@click.command(
    short_help="Create a tar of what one host needs.",
    epilog="""\b
Examples:
  quorumvault pack vault --node n2 -o n2.tar
  quorumvault pack vault --node n2 -o - | ssh 10.0.0.2 'mkdir -p vault && tar -x -C vault'""",
)
@node_options
@output_options("The tar; - is standard output. Default: NAME.tar in this directory.")
@json_option
def pack(config: Path, node: str, output: Path | None, force: bool, as_json: bool) -> None:
    """Create a tar of what one node of the cluster in DIR needs on its host: configuration, secrets, its own data.

    The node must not be running. The command asks running nodes for the fingerprint of their API keys, and warns if it differs:
    an older key file would let revoked keys in again. Protect the tar as you protect secrets/: it contains the secrets.
    """
    from quorumvault.server.offline.pack import pack as pack_node

    path = output or Path(f"{node}.tar")
    if path == STANDARD and as_json:
        raise click.UsageError("with -o - standard output is the tar; --json has no place there")
    settings = load_place(config, node)
    _warn_of_other_keys(settings)
    with destination(path, force=force) as sink:
        packed = pack_node(settings, sink)
    counts = {"files": packed.files, "bytes": packed.size}
    answer = {"tar": path, "node": node, "disk": packed.disk.hex(), **counts, "of_host": packed.of_host}
    print_answer(answer, _words(config.parent / node, path, packed), as_json=as_json, err=path == STANDARD)


def _warn_of_other_keys(config: NodePlace) -> None:
    """Warns on standard error if a running node has other API keys than those to be packed."""
    from quorumvault.client import Client, ClientPolicy

    cluster, mine = config.cluster, load_keys(config.cluster.api_keys).fingerprint
    others = list(cluster.api_urls().values())
    with Client(others, cacert=cluster.api_ca, policy=ClientPolicy(health_silence=_PATIENCE)) as client:
        reports = [answer.report for answer in client.health() if answer.report is not None]
    differing = [report.node for report in reports if report.keys not in ("", mine)]
    if differing:
        words = (
            f"Warning: the API keys of {' and '.join(differing)} are others than those in {cluster.api_keys}. If this file is "
            f"the older one, keys that were revoked since would work on {config.node}: copy the file from there, and pack again."
        )
        say(visible(words), err=True)


def _words(disk: Path, path: Path, packed: Packed) -> str:
    node = disk.name
    what = "The tar" if path == STANDARD else str(path)
    name = "the tar" if path == STANDARD else shlex.quote(path.name)
    absent = f"\nNot in it, since its host has it of its own: {', '.join(packed.of_host)}.\n" if packed.of_host else ""
    secrets = "" if packed.of_host else ", the secrets among them"
    return f"""\
{what} has what {node} needs: {packed.files} files, {packed.size:,} bytes{secrets}.
{absent}
On its host, in an empty directory:
  tar -xf {name}
  quorumvault serve --config cluster.yaml --node {node}

From then on its disk is there: do not start {disk} as well. Of two processes with one disk, peers send one away."""
