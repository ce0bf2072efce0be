"""Reads the disks of a stopped cluster without its nodes: the records that nodes must return in the end."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

from quorumvault.server.storage.binding import plyvel

_DIGEST_BYTES = 20


def left(stores: Iterable[Path], owner: str, tokens: Mapping[str, str], ends: Mapping[Path, int]) -> set[str]:
    """Returns the values, among ``tokens`` by value, whose record any of the stores has and can read.

    ``ends``: the ends of torn logs before the damage. Bytes after the end were never written by a node.
    """
    keys, found = {_key(owner, token): value for value, token in tokens.items()}, set[bytes]()
    for store in (path for path in stores if path.exists()):
        with tempfile.TemporaryDirectory() as place:
            copied = Path(shutil.copytree(store, Path(place) / "store"))
            for log, length in ends.items():
                if log.parent == store:
                    os.truncate(copied / log.name, length)
            found |= set(_readable(copied, keys))
    return {keys[key] for key in found}


def _key(owner: str, token: str) -> bytes:
    """Returns the store's key for a token's record: see docs/token-format.md, and quorumvault/server/storage/layout.py."""
    _, epoch, body = token.split("_")
    digest = bytes.fromhex(body)[:_DIGEST_BYTES]
    owner_id = hashlib.blake2b(owner.encode(), digest_size=16, person=b"qv owner id").digest()
    return b"r" + digest[:2] + owner_id + int(epoch).to_bytes(4, "big") + digest[2:]


def _readable(store: Path, keys: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the keys that the store has and can read."""
    try:
        with closing(plyvel.DB(str(store), create_if_missing=False, paranoid_checks=True)) as db:
            for key in keys:
                try:
                    if db.get(key, verify_checksums=True) is not None:
                        yield key
                except plyvel.CorruptionError:
                    continue
    except plyvel.Error:
        return
