"""``quorumvault pack``: what one host needs, in one file to carry to it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quorumvault.cli.destination import STANDARD, destination
from quorumvault.cli.options import json_option
from quorumvault.cli.output import print_json
from quorumvault.config import load_node

if TYPE_CHECKING:
    from quorumvault.packing import Packed


@click.command(
    short_help="Make a tar of what one host needs.",
    epilog="""\b
Examples:
  quorumvault pack vault --node n2 -o n2.tar
  quorumvault pack vault --node n2 -o - | ssh 10.0.0.2 'mkdir -p vault && tar -x -C vault'""",
)
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--node", required=True, metavar="NAME", help="Whose data to take: n1, n2 or n3.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The tar; - is standard output. Default: NAME.tar in this directory.",
)
@click.option("--force", is_flag=True, help="Replace the output file if there is one.")
@json_option
def pack(directory: Path, node: str, output: Path | None, force: bool, as_json: bool) -> None:
    """Make a tar of what one node of the cluster in DIR needs on its host: configuration, secrets, its own data.

    The node must not run. Guard the file as you guard secrets/: it has them in it.
    """
    from quorumvault.packing import pack as pack_node

    path = output or Path(f"{node}.tar")
    if path == STANDARD and as_json:
        raise click.UsageError("with -o - standard output is the tar; --json has no place there")
    config = load_node(directory / "cluster.yaml", node)
    with destination(path, force=force, mode=0o600) as sink:
        packed = pack_node(config, sink)
    if as_json:
        print_json({"tar": str(path), "node": node, "disk": packed.disk.hex(), "files": packed.files, "bytes": packed.size})
    else:
        _tell(directory, node, path, packed)


def _tell(directory: Path, node: str, path: Path, packed: Packed) -> None:
    what = "The tar" if path == STANDARD else str(path)
    name = "the tar" if path == STANDARD else shlex.quote(path.name)
    click.echo(
        f"""\
{what} has what {node} needs: {packed.files} files, {packed.size:,} bytes, the secrets among them.

On its host, in an empty directory:
  tar -xf {name}
  quorumvault serve --config cluster.yaml --node {node}

From then on its disk is there: do not start {directory / node} as well. Of two processes with one disk, peers send one away.""",
        err=path == STANDARD,
    )
