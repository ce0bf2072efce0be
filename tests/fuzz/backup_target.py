"""Backup files, broken as bytes and as messages, through the whole of ``restore``: it names the error, or makes a cluster."""

import functools
import hashlib
import os
import shutil
import struct
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random

import msgspec

from quorumvault.config.addresses import plan_nodes
from quorumvault.config.cluster import load_node
from quorumvault.config.secrets import write_secret
from quorumvault.crypto.keys import Keyring, backup_key, fingerprint
from quorumvault.errors import QuorumVaultError
from quorumvault.server.backup.format import Counts, Header, Message, Piece, Trailer, seal
from quorumvault.server.offline.restore import Given, restore
from quorumvault.server.storage import layout
from tests.fuzz.mutation import mutate
from tests.fuzz.target import InProcess, Violation
from tests.rigs.made import CLINIC, NOW, sealed

_MASTER = b"m" * 32
_MAGIC = b"QVBACKUP\x01"
_NODES = plan_nodes(["127.0.0.1"], 9100)
_WORDS = (
    b"\xa1\xff", b"\x91" * 12_000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc0", b"\x01", b"../../x", b"\xa1x",
    b"R", b"O",
)  # fmt: skip


@functools.cache
def _messages() -> list[bytes]:
    """The payloads of a small valid backup, except for the seal of its trailer."""
    pairs = {layout.OWNER + CLINIC.id: b"clinic"}
    for number in range(3):
        pairs |= sealed(Keyring("s1", _MASTER), CLINIC, f"value {number}")
    ordered = sorted(pairs)
    said: list[Message] = [
        Header("old", 4, "s1", fingerprint(_MASTER), "2026-01-01T00:00:00.000+00:00", "1.0"),
        *(Piece([key], [pairs[key]]) for key in ordered),
        Trailer(Counts(3, 0, 1, 0), ["n1", "n2"], bytes(32)),
    ]
    return [msgspec.msgpack.encode(message) for message in said]


def _framed(payloads: Sequence[bytes]) -> bytes:
    """A file with matching digests. If the last payload is a trailer, its seal is that of a holder of the master secret."""
    whole, state = b"", hashlib.blake2b(digest_size=16)
    for number, payload in enumerate(payloads):
        if number == len(payloads) - 1:
            payload = payload.replace(bytes(32), seal(backup_key(_MASTER), state.digest()))
        raw = (b"" if number else _MAGIC) + struct.pack(">I", len(payload)) + payload
        state.update(raw)
        whole += raw + state.digest()
    return whole


class Backups(InProcess):
    """Restoring succeeds only for what was sealed with the master secret."""

    def open(self, stack: ExitStack) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_secret(folder / "master.key", _MASTER)
        (folder / "fields.yaml").write_text("fields: [$.ssn]\n")
        (folder / "api_keys.yaml").write_text("owners: [clinic]\nkeys: []\n")
        self._given = Given(folder / "master.key", folder / "fields.yaml", folder / "api_keys.yaml")
        self._file, self._made = folder / "backup", folder / "made"

    def make(self, rng: Random) -> bytes:
        payloads = list(_messages())
        if rng.random() < 0.3:
            return mutate(rng, _framed(payloads), _WORDS)
        place = rng.randrange(len(payloads))
        match rng.randrange(8):
            case 0:
                payloads[place : place + 1] = []
            case 1:
                payloads.insert(rng.randrange(len(payloads) + 1), payloads[place])
            case _:
                payloads[place] = mutate(rng, payloads[place], _WORDS)
        return _framed(payloads)

    def check_one(self, data: bytes) -> str:
        self._file.write_bytes(data)
        try:
            made = restore(self._file, self._made, _NODES, self._given, now=NOW, entropy=os.urandom, tell=lambda words: None)
        except QuorumVaultError as error:
            if self._made.exists() and any(self._made.iterdir()):
                raise Violation(f"a restore that failed left something behind after {type(error).__name__}: {error}") from None
            return type(error).__name__
        else:
            load_node(made.cluster_file, "n1")
            return "restored"
        finally:
            shutil.rmtree(self._made, ignore_errors=True)
