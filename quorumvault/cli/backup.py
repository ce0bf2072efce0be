"""``quorumvault backup``: writes all that a running cluster has committed to a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from quorumvault.cli.destination import STANDARD, destination, output_options
from quorumvault.cli.options import admin_client, json_option, node_options
from quorumvault.cli.output import print_json, say, steps_on_terminal, visible
from quorumvault.config.cluster import load_cluster

if TYPE_CHECKING:
    from quorumvault.cli.admin_client import AdminClient
    from quorumvault.server.backup.format import Header, Trailer

#: The most unreadable parts to name one by one.
_SHOWN = 5
#: The number of records and other entries between two lines of progress.
_TOLD = 1_000_000


@click.command(
    short_help="Save all records of a running cluster to a file.",
    epilog="""\b
Examples:
  quorumvault backup vault --node n1 -o 2025-03-01.qvb
  quorumvault backup vault --node n1 -o - | tee 2025-03-01.qvb | sha256sum""",
)
@node_options
@json_option
@output_options("The backup file, readable only by you; - is standard output.", required=True)
def backup(config: Path, node: str, as_json: bool, output: Path, force: bool) -> None:
    """Have a node save everything that its cluster has committed, from its own disk and another node's, while both run.

    The command asks the node through its socket in DIR, on the node's own host. The backup has everything committed before it
    began, even what that node has missed. Values stay sealed, and the backup contains no secret: keep the secrets apart from it,
    because without them it is worthless. Exit 3 if two active nodes cannot be read.
    """
    if output == STANDARD and as_json:
        raise click.UsageError("with -o - standard output is the backup; --json has no place there")
    client = admin_client(config, node)
    with destination(output, force=force) as sink:
        header, trailer, size, unknown = _save(client, sink, steps_on_terminal())
    keep = _to_keep(config)
    if as_json:
        print_json(
            {
                "backup": str(output),
                "bytes": size,
                "begun": header.begun,
                "cluster_id": header.cluster_id,
                "view": header.view,
                "sources": trailer.sources,
                "records": trailer.counts.records,
                "owners": trailer.counts.owners,
                "conflicts": trailer.counts.conflicts,
                "unknown": [{"first": first.hex(), "end": end.hex()} for first, end in unknown],
                "secret": {"id": header.secret, "fingerprint": header.fingerprint},
                "keep": keep,
            }
        )
    else:
        _tell(output, header, trailer, size, keep)
    if unknown:
        say(_unknown_words(unknown), err=True)


def _save(
    client: AdminClient, sink: BinaryIO, tell: Callable[[str], None]
) -> tuple[Header, Trailer, int, list[tuple[bytes, bytes]]]:
    """Saves a backup. Returns its header, trailer and size in bytes, and the key ranges that fewer than two disks could read."""
    from quorumvault.server.backup.format import Piece
    from quorumvault.server.storage import layout

    entries, unknown = 0, list[tuple[bytes, bytes]]()
    with client.backup() as reader:
        sink.write(reader.start)
        size = len(reader.start)
        frame = reader.next()
        while isinstance(frame.message, Piece):
            sink.write(frame.raw)
            size += len(frame.raw)
            pairs = zip(frame.message.keys, frame.message.values, strict=True)
            unknown += [(key[1:], end) for key, end in pairs if key.startswith(layout.GAP)]
            before, entries = entries, entries + len(frame.message.keys)
            if entries // _TOLD > before // _TOLD:
                tell(f"{entries:,} entries so far")
            frame = reader.next()
        sink.write(frame.raw)
        return reader.header, frame.message, size + len(frame.raw), unknown


def _unknown_words(unknown: list[tuple[bytes, bytes]]) -> str:
    parts = ", ".join(f"qv_E_{first[:2].hex()}… to qv_E_{end[:2].hex()}…" for first, end in unknown[:_SHOWN])
    more = f", and {len(unknown) - _SHOWN:,} more" if len(unknown) > _SHOWN else ""
    return (
        f"In {len(unknown):,} parts of the keys fewer than two of the three disks could be read: among the tokens {parts}{more}. "
        f"What any of them could read is in the backup. What was on the others and is nowhere else is not, and a cluster that "
        f"is restored from it says there that it does not know, and never not found."
    )


def _to_keep(config: Path) -> dict[str, str]:
    """Returns the places of the files and the secret without which a backup cannot be restored, by their meaning."""
    cluster = load_cluster(config)
    secret = cluster.secrets.master.place(cluster.file)
    return {"master_secret": secret, "fields": str(cluster.fields), "api_keys": str(cluster.api_keys)}


def _tell(output: Path, header: Header, trailer: Trailer, size: int, keep: dict[str, str]) -> None:
    counts, sources = trailer.counts, visible(" and ".join(trailer.sources))
    what = "The backup" if output == STANDARD else str(output)
    say(
        f"""\
{what} has what {sources} had together: {counts.records:,} records of {counts.owners:,} owners, {size:,} bytes.
Everything that cluster {visible(header.cluster_id)} committed before {visible(header.begun)} is in it (view {header.view}).

No secret is in it. Keep these too, the first one apart from it: with both, every value can be read; without it, none.
  {keep["master_secret"]}   the master secret {header.secret!r}, fingerprint {header.fingerprint}
  {keep["fields"]}   which fields of records are replaced
  {keep["api_keys"]}   hashes of the API keys; without it each owner gets a new key

A new cluster is made out of them with: quorumvault restore""",
        err=output == STANDARD,
    )
    if counts.conflicts:
        say(f"{counts.conflicts:,} of its records mark a token in which two values met: that token stays refused.", err=True)
