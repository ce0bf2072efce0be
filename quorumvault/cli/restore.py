"""``quorumvault restore``: makes a new cluster from a backup."""

from __future__ import annotations

import secrets
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quorumvault.cli.init import address_options, addresses, keys_words, shown_nodes, start_words
from quorumvault.cli.options import json_option
from quorumvault.cli.output import print_answer, steps_on_terminal, visible

if TYPE_CHECKING:
    from quorumvault.server.offline.restore import Restored

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(
    short_help="Create a new cluster from a backup.",
    epilog="""\b
Examples:
  quorumvault restore 2025-03-01.qvb vault-2 --master-secret master-s1.key --fields fields.yaml
  quorumvault restore 2025-03-01.qvb vault-2 --master-secret master-s1.key --fields fields.yaml --api-keys api_keys.yaml""",
)
@click.argument("file", metavar="FILE", type=_FILE)
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--master-secret",
    required=True,
    metavar="FILE",
    type=_FILE,
    help="The old cluster's master secret: secrets/master-s1.key, or a pipe. Its fingerprint must match the backup's.",
)
@click.option(
    "--fields",
    required=True,
    metavar="FILE",
    type=_FILE,
    help="The old cluster's fields.yaml, which names the fields of records to replace.",
)
@click.option(
    "--api-keys",
    metavar="FILE",
    type=_FILE,
    help="The old cluster's api_keys.yaml, so that its keys stay valid. Without it each owner gets a key with all permissions.",
)
@address_options
@json_option
def restore(
    file: Path,
    directory: Path,
    master_secret: Path,
    fields: Path,
    api_keys: Path | None,
    host: str,
    base_port: int,
    as_json: bool,
) -> None:
    """Create a cluster in DIR from the backup in FILE, with a new id and three new disks that each have all records.

    The command first verifies the whole backup, every record with its own key, and only then creates anything. Afterwards it
    compares each disk with the backup, record by record. DIR may exist if it is empty. After any failure it is empty again.

    Tokens stay the same. Stop the old cluster for good before clients use the new one: the two do not know of each other.
    """
    from quorumvault.server.offline.restore import Given
    from quorumvault.server.offline.restore import restore as restore_cluster

    restored = restore_cluster(
        file,
        directory,
        addresses(host, base_port),
        Given(master_secret, fields, api_keys),
        now=datetime.now(UTC),
        entropy=secrets.token_bytes,
        tell=steps_on_terminal(),
    )
    print_answer(_answer(restored), _words(restored), as_json=as_json)


def _answer(restored: Restored) -> dict[str, object]:
    return {
        "cluster": restored.cluster_file,
        "nodes": shown_nodes(restored.cluster_file),
        "begun": restored.header.begun,
        "from_cluster_id": restored.header.cluster_id,
        "records": restored.counts.records,
        "owners": restored.counts.owners,
        "conflicts": restored.counts.conflicts,
        "api_keys": dict(restored.api_keys),
        "owners_without_key": restored.keyless,
    }


def _words(restored: Restored) -> str:
    header, counts = restored.header, restored.counts
    config = shlex.quote(str(restored.cluster_file))
    made = (
        f"A cluster is in {restored.cluster_file.parent}, with {counts.records:,} records of {counts.owners:,} owners, verified "
        f"on\nall three disks: what cluster {visible(header.cluster_id)} had committed before {visible(header.begun)}.\n"
    )
    keys = keys_words(restored.api_keys) if restored.api_keys else ["The API keys are those of the file that was given."]
    create = f"quorumvault keys create --config {config} --owner"
    keyless = (f"{owner} is not in it: {create} {owner} --new-owner" for owner in restored.keyless)
    rest = "\nLimits and the like in cluster.yaml are the defaults. Each node's part for its host: quorumvault pack"
    return "\n".join([made, *keys, *keyless, *start_words(restored.cluster_file), rest])
