"""``quorumvault init``: make a cluster's directory, or a new disk for one of its nodes."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from quorumvault.cli.options import json_option
from quorumvault.cli.output import print_json, say
from quorumvault.config.addresses import MAX_BASE_PORT, Endpoints, plan_nodes
from quorumvault.model import Owner

if TYPE_CHECKING:
    from quorumvault.server.offline.init import Initialised

DEFAULT_OWNER = "default"


def address_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --host and --base-port, for ``addresses``."""
    for option in reversed(_ADDRESSES):
        command = option(command)
    return command


_ADDRESSES = (
    click.option(
        "--host",
        metavar="H1,H2,H3",
        default="127.0.0.1",
        show_default=True,
        help="One host for all three nodes, or three. Three nodes on one host get ports P, P+1, P+2 for the API and P+10, P+11, "
        "P+12 for each other; on three hosts each gets P and P+10.",
    ),
    click.option(
        "--base-port",
        metavar="P",
        type=click.IntRange(1, MAX_BASE_PORT),
        default=8700,
        show_default=True,
        help="The first API port.",
    ),
)


def addresses(host: str, base_port: int) -> dict[str, Endpoints]:
    """Return the addresses of the three nodes by name. Raises BadParameter."""
    try:
        return plan_nodes([part.strip() for part in host.split(",")], base_port)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--host") from None


@click.command(
    short_help="Make a new cluster in a directory, or a new disk for one of its nodes.",
    epilog="""\b
Examples:
  quorumvault init vault
  quorumvault init vault --host 10.0.0.1,10.0.0.2,10.0.0.3 --owner clinic-a --owner clinic-b
  quorumvault init vault --replace n2 --host 10.0.0.4""",
)
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@address_options
@click.option(
    "--owner",
    "owners",
    metavar="NAME",
    multiple=True,
    default=(DEFAULT_OWNER,),
    show_default=True,
    help="Whose tokens will be kept; repeat it for several. Each gets an API key that may tokenize, detokenize and rotate.",
)
@click.option(
    "--replace",
    metavar="NODE",
    help="Of the cluster in DIR, give this node a new disk in the place of one that is lost; with --host H, on another host.",
)
@json_option
@click.pass_context
def init(
    context: click.Context,
    directory: Path,
    host: str,
    base_port: int,
    owners: tuple[str, ...],
    replace: str | None,
    as_json: bool,
) -> None:
    """Make a cluster in DIR: configuration, secrets, the first API keys and three empty nodes.

    The API keys are printed this once. DIR may exist if it is empty.

    With --replace, DIR has a cluster, and one of its nodes gets a new and empty disk, which joins the two others when it is
    served. What was in the node's data directory is set aside under another name, and nothing is removed.
    """
    from quorumvault.server.offline.init import init as make_cluster

    if replace is not None:
        _replace(context, directory, replace, host, as_json=as_json)
        return
    nodes = addresses(host, base_port)
    try:
        wanted = [Owner(name) for name in dict.fromkeys(owners)]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--owner") from None
    made = make_cluster(directory, nodes, wanted, now=datetime.now(UTC), entropy=secrets.token_bytes)
    if as_json:
        print_json(_answer(made))
    else:
        _tell(made)


def _replace(context: click.Context, directory: Path, node: str, host: str, *, as_json: bool) -> None:
    from quorumvault.server.offline.replace_disk import replace_disk

    given = {
        name for name in ("host", "base_port", "owners") if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    if given - {"host"}:
        raise click.UsageError("--replace goes with --host and --json alone: ports, owners and keys are the cluster's")
    try:
        made = replace_disk(directory, node, host if given else None, entropy=secrets.token_bytes)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--host") from None
    at = made.endpoints
    if as_json:
        aside = None if made.quarantined is None else str(made.quarantined)
        where = {"api": f"http://{at.api}", "peer": str(at.peer)}
        print_json({"cluster": str(made.cluster_file), "node": node, "disk": made.disk.hex(), "set_aside": aside, **where})
        return
    say(f"{node} has a new and empty disk, {made.disk.hex()}, in {made.data_directory}.")
    if made.quarantined is not None:
        say(f"What was there is in {made.quarantined} now. Keep it until {node} is active again.")
    if given:
        say(
            f"{node} is at {at.api} and {at.peer} from now on: copy {made.cluster_file} to the other hosts, and send their nodes "
            f"SIGHUP (or: quorumvault admin reload)."
        )
    say(
        f"\nStart it on its host; it joins by itself when both others are active:\n  quorumvault serve --config "
        f"{shlex.quote(str(made.cluster_file))} --node {node}"
    )


def _answer(made: Initialised) -> dict[str, object]:
    return {"cluster": str(made.cluster_file), "nodes": shown_nodes(made.nodes), "api_keys": dict(made.api_keys)}


def _tell(made: Initialised) -> None:
    say(f"A cluster is in {made.cluster_file.parent}. Copy secrets/ to a safe place: no value can be read without it.\n")
    tell_keys(made.api_keys)
    tell_start(made.cluster_file, made.nodes)


def tell_keys(api_keys: Mapping[str, str]) -> None:
    """By owner."""
    say("API keys, shown this once:")
    for owner, key in api_keys.items():
        say(f"  {owner}  {key}")


def tell_start(cluster_file: Path, nodes: Mapping[str, Endpoints]) -> None:
    """Print how the nodes of a new cluster are started, and where clients find them."""
    say("\nStart the nodes, each where its address is:")
    for node in nodes:
        say(f"  quorumvault serve --config {shlex.quote(str(cluster_file))} --node {node}")
    urls = ",".join(f"http://{at.api}" for at in nodes.values())
    say(f"\nTheir addresses, for clients:\n  export QUORUMVAULT_URL={shlex.quote(urls)}")


def shown_nodes(nodes: Mapping[str, Endpoints]) -> dict[str, dict[str, str]]:
    """For machines."""
    return {node: {"api": f"http://{at.api}", "peer": str(at.peer)} for node, at in nodes.items()}
