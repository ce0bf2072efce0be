"""``quorumvault recover``: works offline, when too few disks can still be opened."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quorumvault.cli.options import json_option
from quorumvault.cli.output import print_answer, steps_on_terminal, visible
from quorumvault.config.cluster import load_node, load_place, with_secret
from quorumvault.errors import Refused
from quorumvault.model import NODE_NAMES
from quorumvault.server.replica.copy import PARTS

if TYPE_CHECKING:
    from quorumvault.server.offline.rebuild import Rebuilt
    from quorumvault.server.offline.recover import Recovery
    from quorumvault.server.offline.torn import Cut

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
    short_help="Repair stores that do not open, while all nodes are stopped.",
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
    help="If two disks are lost: create a new cluster from this node's disk, and lose what it does not have.",
)
@click.option(
    "--accept-loss",
    is_flag=True,
    help="Continue although records may be lost. Required with --only, and if two disks cannot read the same part.",
)
@click.option(
    "--donor",
    "donors",
    metavar="PATH",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Data directory of a disk that no longer counts, to use its records too. Those beside the others need no --donor.",
)
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="NEW",
    help="With --only: directory of the new cluster, missing or empty.",
)
@click.option(
    "--accept-older",
    is_flag=True,
    help="If all machines were restored from older copies: merge these, and lose what was acknowledged after they were taken.",
)
@json_option
def recover(
    directory: Path,
    only: str | None,
    accept_loss: bool,
    donors: tuple[Path, ...],
    into: Path | None,
    accept_older: bool,
    as_json: bool,
) -> None:
    """Cut torn writes off the logs, read around damage, and bring the stores in DIR to the same content.

    Use it if no two nodes start, or if a new disk waits because another node cannot read all of its store. If only one node does
    not start while two others run, restart it or replace its disk instead: it then copies from the others.

    All nodes must be stopped. DIR needs the data directories of at least two nodes; if the nodes are on separate hosts, copy
    these directories here, and back afterwards. Records in directories set aside beside them (nX.set-aside-1) are used too. What
    was cut off is kept in DIR/nX/torn, and a store that could not be read completely in DIR/nX/store.damaged.set-aside-1.
    """
    from quorumvault.server.offline.rebuild import rebuild as rebuild_from
    from quorumvault.server.offline.recover import recover as recover_disks

    tell = steps_on_terminal()
    if only is None:
        if into is not None:
            raise click.UsageError("--into goes with --only: without it the cluster stays what it is")
        nodes = with_secret(*(load_place(directory / "cluster.yaml", node) for node in NODE_NAMES))
        recovered = recover_disks(nodes, tell, accept_older=accept_older, accept_loss=accept_loss, donors=donors)
        print_answer(_recovery(recovered), _recovery_words(recovered), as_json=as_json)
        return
    if donors:
        raise click.UsageError("--donor is for two disks or three: with --only there is one that counts, and no other is read")
    if accept_older:
        raise click.UsageError("--accept-older is for two disks or three: with --only there is nothing that it could forget")
    if into is None:
        raise click.UsageError("--only makes a new cluster: say where, --into NEW")
    if not accept_loss:
        raise Refused(_LOSS.format(node=only, directory=directory))
    old, now = load_node(directory / "cluster.yaml", only), datetime.now(UTC)
    rebuilt = rebuild_from(old, into, now=now, entropy=secrets.token_bytes, tell=tell)
    print_answer(_rebuilt(rebuilt), _rebuilt_words(rebuilt, only), as_json=as_json)


def _recovery(recovered: Recovery) -> dict[str, object]:
    """Returns the result for --json. A disk that was cut and then left out is among the nodes too, with ``added`` null.

    ``rebuilt`` is set for a disk whose store was made anew, to the place of the old store.
    """
    nodes: dict[str, dict[str, object]] = {
        node: {"cuts": recovered.cuts.get(node, []), "added": recovered.added.get(node)}
        for node in {**recovered.cuts, **recovered.added}
    }
    for node, aside in recovered.rebuilt.items():
        nodes[node]["rebuilt"] = aside
    return {
        "donors": recovered.donors,
        "unread": recovered.unread,
        "facts_unread": recovered.facts_unread,
        "records": recovered.records,
        "nodes": nodes,
        "left_out": recovered.left_out,
        "older": recovered.older,
        "in_doubt": recovered.in_doubt,
    }


def _rebuilt(rebuilt: Rebuilt) -> dict[str, object]:
    return {
        "cluster": rebuilt.cluster_file,
        "records": rebuilt.records,
        "newest": rebuilt.newest,
        "whole": rebuilt.whole,
        "distrusted": rebuilt.distrusted,
        "unread": rebuilt.unread,
        "cuts": rebuilt.cuts,
    }


def _recovery_words(recovered: Recovery) -> str:
    lines: list[str] = []
    for node, reason in recovered.left_out.items():
        lines.append(visible(f"{node}: left out: {reason}"))
        if cuts := recovered.cuts.get(node):
            lines += _cut_words(node, cuts)
    for node, reason in recovered.older.items():
        lines.append(visible(f"{node}: an older copy, which was accepted: {reason}"))
    for node, added in recovered.added.items():
        lines += _cut_words(node, recovered.cuts.get(node, []))
        if node in recovered.rebuilt:
            aside = recovered.rebuilt[node]
            kept = "" if aside is None else f"; the old one, which could not be read to its end, is {aside}"
            lines.append(visible(f"{node}: its store was made anew, of {added:,} entries{kept}"))
        else:
            lines.append(f"{node}: {added:,} entries that others had and it had not")
    lines += [visible(f"{name}: gave {given:,} entries that no other had") for name, given in recovered.donors.items()]
    lines.append(f"\n{' and '.join(recovered.added)} have the same {recovered.records:,} records, and can be started.")
    if recovered.unread:
        lines.append(
            f"{recovered.unread:,} of {PARTS:,} parts of the stores could be read on fewer than two disks. What was acknowledged "
            f"there and is on none of these is gone: its tokens are not found."
        )
    if "epochs" in recovered.facts_unread:
        lines.append("Epochs were among them: each owner goes on in that of its newest record. Rotate those that left it.")
    if "revoked keys" in recovered.facts_unread:
        lines.append("Revoked keys were among them: some may be taken again. Revoke them once more: quorumvault keys revoke ID")
    if recovered.in_doubt:
        lines.append(_DOUBT.format(cut=" and ".join(recovered.in_doubt), absent=" and ".join(recovered.left_out)))
    elif any(recovered.cuts.values()):
        lines.append("What was cut was never acknowledged, unless a disk has damaged it since. The copies can be removed.")
    rest = "had no voice in this. Once the others run, start it too, and if it does not start, replace its disk."
    lines += [f"{node} {rest}" for node in recovered.left_out]
    return "\n".join(lines)


def _cut_words(node: str, cuts: Sequence[Cut]) -> list[str]:
    if not cuts:
        return [f"{node}: nothing was torn"]
    lines = []
    for cut in cuts:
        entries = "" if cut.entries is None else f", a write of {cut.entries:,} entries"
        lines.append(f"{node}: {cut.log.name}: cut {cut.cut:,} bytes behind {cut.kept:,}{entries}; kept as {cut.copy}")
    return lines


def _rebuilt_words(rebuilt: Rebuilt, only: str) -> str:
    newest = "" if rebuilt.newest is None else f", the newest first written at {rebuilt.newest:%Y-%m-%d %H:%M:%S} UTC"
    directory = rebuilt.cluster_file.parent
    lines = _cut_words(only, rebuilt.cuts)
    lines.append(f"\nA new cluster is in {directory}, with all that {only} had: {rebuilt.records:,} records{newest}.")
    if rebuilt.distrusted is not None:
        lines.append(visible(f"{only} did not trust its disk: {rebuilt.distrusted}"))
    if not rebuilt.whole:
        lines.append(f"{only} was still joining its old cluster, and had only a part of what that one had.")
    if rebuilt.unread:
        lines.append(
            f"{only} could not read {rebuilt.unread:,} of 65,539 parts of its store, or did not know all that it had there. "
            f"What it cannot tell is gone."
        )
    lines.append(
        f"What the two other disks acknowledged without {only} is gone: those tokens are not found any more, and rotations may "
        f"have to be\nrepeated. Who was given such tokens can tell which. A value that is tokenized again gets the same token."
    )
    packs = (f"  quorumvault pack {shlex.quote(str(directory))} --node {node}" for node in NODE_NAMES)
    return "\n".join([*lines, "\nEach node's part for its host:", *packs])
