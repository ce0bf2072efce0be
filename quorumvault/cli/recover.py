"""``quorumvault recover``: offline, when too few disks are left that open."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quorumvault.cli.options import json_option
from quorumvault.cli.output import print_json, say, steps_on_terminal, visible
from quorumvault.config.cluster import load_node
from quorumvault.errors import Refused
from quorumvault.model import NODE_NAMES

if TYPE_CHECKING:
    from quorumvault.server.offline.rebuild import Rebuilt
    from quorumvault.server.offline.recover import Cut, Recovery

_LOSS = (
    "{node} alone cannot know what the two other disks acknowledged without it: tokens of values that were tokenized while "
    "{node} was away will be not found, and an epoch that was rotated meanwhile will not be active. If a second disk can be had, "
    "bring it to {directory}: without --only nothing is lost. Otherwise say --accept-loss"
)

_DOUBT = (
    "In doubt: what was torn on {cut}. It was never acknowledged, unless the disk has damaged it since; then it may be on "
    "{absent},\nand on neither of these. If a better disk of {absent} can be brought here, start no node before that, and repeat "
    "this."
)


@click.command(
    short_help="Mend stores that do not open, with all nodes stopped.",
    epilog="""\b
Examples:
  quorumvault recover vault
  quorumvault recover vault --only n1 --accept-loss --into vault-2""",
)
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--only",
    metavar="NODE",
    type=click.Choice(NODE_NAMES),
    help="Two disks are lost: make a new cluster out of this node's, and lose what it does not have.",
)
@click.option("--accept-loss", is_flag=True, help="Has to be said with --only.")
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="NEW",
    help="With --only: the new cluster's directory, missing or empty.",
)
@click.option(
    "--accept-older",
    is_flag=True,
    help="All machines were put back from older copies: unite these, and lose what was acknowledged after they were taken.",
)
@json_option
def recover(directory: Path, only: str | None, accept_loss: bool, into: Path | None, accept_older: bool, as_json: bool) -> None:
    """Cut off what a power cut has torn, and bring the stores in DIR to the same content.

    For when no two nodes start any more. One that does not start while two others run needs none of this: it is started again,
    or replaced, and copies theirs.

    All nodes have to be stopped. DIR needs the data directories of at least two of them; from hosts of their own they are
    copied here, and back afterwards. What was cut is kept in DIR/nX/torn.
    """
    from quorumvault.server.offline.rebuild import rebuild as rebuild_from
    from quorumvault.server.offline.recover import recover as recover_disks

    tell = steps_on_terminal()
    if only is None:
        if accept_loss or into is not None:
            raise click.UsageError("--accept-loss and --into go with --only: without it nothing is lost")
        nodes = [load_node(directory / "cluster.yaml", node) for node in NODE_NAMES]
        recovered = recover_disks(nodes, tell, accept_older=accept_older)
        if as_json:
            print_json(_recovery(recovered))
        else:
            _tell_recovery(recovered)
        return
    if accept_older:
        raise click.UsageError("--accept-older is for two disks or three: with --only there is nothing that it could forget")
    if into is None:
        raise click.UsageError("--only makes a new cluster: say where, --into NEW")
    if not accept_loss:
        raise Refused(_LOSS.format(node=only, directory=directory))
    rebuilt = rebuild_from(load_node(directory / "cluster.yaml", only), into, entropy=secrets.token_bytes, tell=tell)
    if as_json:
        print_json(_rebuilt(rebuilt))
    else:
        _tell_rebuilt(rebuilt, only)


def _cut(cut: Cut) -> dict[str, object]:
    return {"log": str(cut.log), "kept": cut.kept, "cut": cut.cut, "entries": cut.entries, "copy": str(cut.copy)}


def _recovery(recovered: Recovery) -> dict[str, object]:
    """A disk that was cut and then left out is among the nodes too, and was given nothing: ``added`` is null."""
    nodes = {
        node: {"cuts": [_cut(cut) for cut in cuts], "added": recovered.added.get(node)} for node, cuts in recovered.cuts.items()
    }
    return {
        "records": recovered.records,
        "nodes": nodes,
        "left_out": recovered.left_out,
        "older": recovered.older,
        "in_doubt": recovered.in_doubt,
    }


def _rebuilt(rebuilt: Rebuilt) -> dict[str, object]:
    return {
        "cluster": str(rebuilt.cluster_file),
        "records": rebuilt.records,
        "newest": rebuilt.newest,
        "whole": rebuilt.whole,
        "distrusted": rebuilt.distrusted,
        "cuts": [_cut(cut) for cut in rebuilt.cuts],
    }


def _tell_recovery(recovered: Recovery) -> None:
    for node, reason in recovered.left_out.items():
        say(visible(f"{node}: left out: {reason}"))
        if cuts := recovered.cuts.get(node):
            _tell_cuts(node, cuts)
    for node, reason in recovered.older.items():
        say(visible(f"{node}: an older copy, which was accepted: {reason}"))
    for node, added in recovered.added.items():
        _tell_cuts(node, recovered.cuts[node])
        say(f"{node}: {added:,} entries that others had and it had not")
    say(f"\n{' and '.join(recovered.added)} have the same {recovered.records:,} records, and can be started.")
    if recovered.in_doubt:
        say(_DOUBT.format(cut=" and ".join(recovered.in_doubt), absent=" and ".join(recovered.left_out)))
    elif any(recovered.cuts.values()):
        say("What was cut was never acknowledged, unless a disk has damaged it since. The copies can be removed.")
    for node in recovered.left_out:
        say(f"{node} had no part in this. Once the others run, start it too, and if it does not start, replace its disk.")


def _tell_cuts(node: str, cuts: Sequence[Cut]) -> None:
    if not cuts:
        say(f"{node}: nothing was torn")
    for cut in cuts:
        entries = "" if cut.entries is None else f", a write of {cut.entries:,} entries"
        say(f"{node}: {cut.log.name}: cut {cut.cut:,} bytes behind {cut.kept:,}{entries}; kept as {cut.copy}")


def _tell_rebuilt(rebuilt: Rebuilt, only: str) -> None:
    _tell_cuts(only, rebuilt.cuts)
    newest = "" if rebuilt.newest is None else f", the newest first written at {rebuilt.newest:%Y-%m-%d %H:%M:%S} UTC"
    directory = rebuilt.cluster_file.parent
    say(f"\nA new cluster is in {directory}, with all that {only} had: {rebuilt.records:,} records{newest}.")
    if rebuilt.distrusted is not None:
        say(visible(f"{only} did not trust its disk: {rebuilt.distrusted}"))
    if not rebuilt.whole:
        say(f"{only} was still joining its old cluster, and had only a part of what that one had.")
    say(
        f"What the two other disks acknowledged without {only} is gone: those tokens are not found any more, and rotations may "
        f"have to be\nrepeated. Who was given such tokens can tell which. A value that is tokenized again gets the same token."
    )
    say("\nEach node's part for its host:")
    for node in NODE_NAMES:
        say(f"  quorumvault pack {shlex.quote(str(directory))} --node {node}")
