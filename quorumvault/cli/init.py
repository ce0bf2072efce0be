"""``quorumvault init``: makes a cluster's directory, or a new disk for one of its nodes."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from quorumvault.cli.options import all_of, json_option
from quorumvault.cli.output import print_answer
from quorumvault.cli.survivors import ask_survivors, doubts, refusal
from quorumvault.config.addresses import MAX_BASE_PORT, Endpoints, plan_nodes
from quorumvault.config.cluster import load_cluster
from quorumvault.config.tls import OWN_CERTIFICATE
from quorumvault.errors import Refused
from quorumvault.model import Owner

if TYPE_CHECKING:
    from quorumvault.server.offline.init import Initialised

DEFAULT_OWNER = "default"


address_options = all_of(
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
    """Returns the addresses of the three nodes by name. Raises BadParameter."""
    try:
        return plan_nodes([part.strip() for part in host.split(",")], base_port)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--host") from None


@click.command(
    short_help="Create a cluster in a directory, or a new disk for one of its nodes.",
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
    help="Owner of tokens. Repeatable. Each owner gets an API key that may tokenize, detokenize and rotate.",
)
@click.option(
    "--replace",
    metavar="NODE",
    help="Give this node of the cluster in DIR a new disk in place of a lost one; with --host H, on another host.",
)
@click.option(
    "--accept-loss", is_flag=True, help="With --replace: go on although another node cannot read what only the old disk may have."
)
@click.option("--tls", is_flag=True, help="Use TLS for the API on loopback too. On other addresses the API always uses TLS.")
@json_option
@click.pass_context
def init(
    context: click.Context,
    directory: Path,
    host: str,
    base_port: int,
    owners: tuple[str, ...],
    replace: str | None,
    accept_loss: bool,
    tls: bool,
    as_json: bool,
) -> None:
    """Create a cluster in DIR: configuration, secrets, the first API keys and three empty nodes.

    The API keys are printed only this once. DIR may exist if it is empty.

    With --replace, DIR has a cluster, and one of its nodes gets a new, empty disk, which joins the two others when the node is
    started. The contents of the node's data directory are set aside under another name; nothing is removed. First the command
    asks the two other nodes whether they can read all their records: what one of them cannot read may be only on the old disk.
    """
    from quorumvault.server.offline.init import init as make_cluster

    if replace is not None:
        _replace(context, directory, replace, host, accept_loss=accept_loss, as_json=as_json)
        return
    if accept_loss:
        raise click.UsageError("--accept-loss goes with --replace: a new cluster has nothing to lose")
    nodes = addresses(host, base_port)
    try:
        wanted = [Owner(name) for name in dict.fromkeys(owners)]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--owner") from None
    made = make_cluster(directory, nodes, wanted, now=datetime.now(UTC), entropy=secrets.token_bytes, tls=tls)
    ca = load_cluster(made.cluster_file).api_ca
    trusting = {} if ca is None else {"cacert": ca}
    answer = {"cluster": made.cluster_file, "nodes": shown_nodes(made.cluster_file), **trusting, "api_keys": dict(made.api_keys)}
    print_answer(answer, _words(made), as_json=as_json)


def _replace(context: click.Context, directory: Path, node: str, host: str, *, accept_loss: bool, as_json: bool) -> None:
    from quorumvault.server.offline.replace_disk import replace_disk

    given = {
        name
        for name in ("host", "base_port", "owners", "tls")
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    if given - {"host"}:
        raise click.UsageError("--replace goes with --host, --accept-loss and --json: ports, owners, keys, TLS are the cluster's")
    survivors = ask_survivors(load_cluster(directory.absolute() / "cluster.yaml"), node)
    if survivors.damaged and not accept_loss:
        raise Refused(refusal(survivors, node))
    try:
        made = replace_disk(directory, node, host if given else None, entropy=secrets.token_bytes)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--host") from None
    at, aside = made.endpoints, made.quarantined
    answer = {"cluster": made.cluster_file, "node": node, "disk": made.disk.hex(), "set_aside": aside}
    answer |= _shown(load_cluster(made.cluster_file).api_urls()[node], at)
    answer |= {"damaged": sorted(survivors.damaged), "unsure": sorted(survivors.unsure)}
    words = [f"{node} has a new and empty disk, {made.disk.hex()}, in {made.data_directory}."]
    if aside is not None:
        words.append(f"What was there is in {aside} now. Keep it until {node} is active again.")
    if (doubt := doubts(survivors, node)) is not None:
        words.append(doubt)
    if given:
        words.append(
            f"{node} is at {at.api} and {at.peer} from now on: copy {made.cluster_file} to the other hosts, and send their nodes "
            f"SIGHUP (or: quorumvault admin reload)."
        )
    if given and load_cluster(made.cluster_file).api.certificate == OWN_CERTIFICATE:
        where = shlex.quote(str(made.cluster_file.parent))
        words.append(f"Its certificate names its old host, for clients of the API: quorumvault certs renew {where} --node {node}")
    words.append(
        f"\nStart it on its host; it joins by itself when both others are active:\n  quorumvault serve --config "
        f"{shlex.quote(str(made.cluster_file))} --node {node}"
    )
    print_answer(answer, "\n".join(words), as_json=as_json)


def _words(made: Initialised) -> str:
    copied = f"A cluster is in {made.cluster_file.parent}. Copy secrets/ to a safe place: no value can be read without it.\n"
    return "\n".join([copied, *keys_words(made.api_keys), *start_words(made.cluster_file)])


def keys_words(api_keys: Mapping[str, str]) -> list[str]:
    """Returns lines with the new API keys, by owner."""
    return ["API keys, shown this once:", *(f"  {owner}  {key}" for owner, key in api_keys.items())]


def start_words(cluster_file: Path) -> list[str]:
    """Returns lines on how to start the nodes of a new cluster, and where clients find them."""
    cluster = load_cluster(cluster_file)
    api_urls, ca = cluster.api_urls(), cluster.api_ca
    config, urls = shlex.quote(str(cluster_file)), ",".join(api_urls.values())
    words = []
    if len({endpoints.api.host for endpoints in cluster.nodes.values()}) > 1:
        words.append("\nOn several hosts, carry to each what its node needs, a tar that is unpacked there:")
        words += [f"  quorumvault pack {shlex.quote(str(cluster_file.parent))} --node {node}" for node in api_urls]
    words += [
        "\nStart the nodes, each where its address is:",
        *(f"  quorumvault serve --config {config} --node {node}" for node in api_urls),
        f"\nTheir addresses, for clients:\n  export QUORUMVAULT_URL={shlex.quote(urls)}",
    ]
    if cluster.api.certificate is None:
        words.append("\nThe API is plain HTTP: for this machine alone.")
    if ca is not None:
        words.append(f"  export QUORUMVAULT_CACERT={shlex.quote(str(ca))}")
    return words


def shown_nodes(cluster_file: Path) -> dict[str, dict[str, str]]:
    """Returns the nodes of a cluster for --json."""
    cluster = load_cluster(cluster_file)
    return {node: _shown(url, cluster.nodes[node]) for node, url in cluster.api_urls().items()}


def _shown(url: str, at: Endpoints) -> dict[str, str]:
    return {"api": url, "peer": str(at.peer)}
