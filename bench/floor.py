"""The floor: the work that no vault can leave out, done for the same requests by plain loops in one process. A baseline only.

    new        JSON in, keyed hash, token, seal, three times (look up, one synced batch), JSON out
    repeated   JSON in, keyed hash, token, seal, two look-ups and comparisons, JSON out
    recovered  JSON in, token back to digest, two look-ups and a comparison, open, JSON out

The floor has no HTTP, events, IPC, quorum, limits or owners, and no threads but LevelDB's own. Formats and LevelDB options are
the vault's, written anew from docs/token-format.md. Nothing of the package runs here (it only says which LevelDB binding is
installed), so changes to the vault cannot make the floor faster or slower.
"""

import hashlib
import secrets
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from bench.work import Result, Results, TokensAsked, TokensGiven, Values
from quorumvault.server.storage.binding import plyvel

COPIES, QUORUM = 3, 2

#: The vault's options, from its storage/leveldb.py.
_OPTIONS = {
    "paranoid_checks": True,
    "compression": None,
    "write_buffer_size": 8 << 20,
    "block_size": 2 << 10,
    "max_open_files": 4096,
    "lru_cache_size": 8 << 20,
    "bloom_filter_bits": 10,
}
_BLOCK = 16
_PADDING = [b"\x80" + bytes(_BLOCK - 1 - length) for length in range(_BLOCK)]
_DIGEST_BYTES = 20
_PREFIX = "qv_1_"
_PREFIX_CRC = zlib.crc32(_PREFIX.encode())
#: A record's version: format, kind, clock and node. Here it is the same for all records.
_HEADER = struct.pack(">2sQB", b"\x01v", 1 << 56, 1)

_read_values = msgspec.json.Decoder(Values).decode
_read_tokens = msgspec.json.Decoder(TokensAsked).decode
_write = msgspec.json.Encoder().encode


class FloorBroken(Exception):
    """The floor's data differ from what it wrote, so its figures mean nothing."""


class Floor:
    """Three stores in a new directory, and the keys of one owner in one epoch. It turns request bodies into response bodies."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._paths = [directory / str(copy) for copy in range(COPIES)]
        self._stores = [_open(path) for path in self._paths]
        self._hash = hashlib.blake2b(key=secrets.token_bytes(32), digest_size=_DIGEST_BYTES)
        self._siv = AESSIV(secrets.token_bytes(64))
        self._scope = secrets.token_bytes(16) + struct.pack(">I", 1)

    def new(self, body: bytes) -> bytes:
        digests, sealed = self._derive(_read_values(body).values)
        keys = self._keys(digests)
        for store in self._stores:
            get = store.get
            held = [get(key, None, verify_checksums=True) for key in keys]
            batch = store.write_batch(sync=True)
            put = batch.put
            for key, one, present in zip(keys, sealed, held, strict=True):
                if present is None:
                    put(key, _HEADER + one)
            batch.write()
        return _write(TokensGiven(1, _tokens(digests)))

    def repeated(self, body: bytes) -> bytes:
        digests, sealed = self._derive(_read_values(body).values)
        records = [_HEADER + one for one in sealed]
        keys = self._keys(digests)
        for store in self._stores[:QUORUM]:
            get = store.get
            if [get(key, None, verify_checksums=True) for key in keys] != records:
                raise FloorBroken("a value that was stored is not there")
        return _write(TokensGiven(1, _tokens(digests)))

    def recovered(self, body: bytes) -> bytes:
        digests = _digests(_read_tokens(body).tokens)
        keys = self._keys(digests)
        first, second = ([store.get(key, None, verify_checksums=True) for key in keys] for store in self._stores[:QUORUM])
        if first != second or None in first:
            raise FloorBroken("a token that was given out is not there")
        decrypt, scope, skip = self._siv.decrypt, self._scope, len(_HEADER)
        opened = [decrypt(record[skip:], [scope + digest]) for record, digest in zip(first, digests, strict=True)]
        # The plaintext is "s", the text, then 0x80 and zeros.
        return _write(Results([Result("ok", padded[1 : padded.rindex(b"\x80")].decode()) for padded in opened], len(opened), 0))

    def reopen(self) -> None:
        """Closes the stores and opens them again, which empties LevelDB's caches."""
        self.close()
        self._stores = [_open(path) for path in self._paths]

    def close(self) -> None:
        for store in self._stores:
            store.close()

    def _derive(self, values: Sequence[str]) -> tuple[list[bytes], list[bytes]]:
        """Returns the digests of the values, and the sealed values."""
        canonicals = [b"s" + value.encode() for value in values]
        copy, digests = self._hash.copy, []
        for canonical in canonicals:
            state = copy()
            state.update(canonical)
            digests.append(state.digest())
        encrypt, scope = self._siv.encrypt, self._scope
        sealed = [
            encrypt(canonical + _PADDING[len(canonical) % _BLOCK], [scope + digest])
            for canonical, digest in zip(canonicals, digests, strict=True)
        ]
        return digests, sealed

    def _keys(self, digests: Sequence[bytes]) -> list[bytes]:
        scope = self._scope
        return [b"r" + digest[:2] + scope + digest[2:] for digest in digests]


def _tokens(digests: Sequence[bytes]) -> list[str]:
    crc32 = zlib.crc32
    return [_PREFIX + (digest + crc32(digest, _PREFIX_CRC).to_bytes(4, "big")).hex() for digest in digests]


def _digests(tokens: Sequence[str]) -> list[bytes]:
    crc32, unhex, skip = zlib.crc32, bytes.fromhex, len(_PREFIX)
    bodies = [unhex(token[skip:]) for token in tokens]
    digests = [body[:_DIGEST_BYTES] for body in bodies]
    for body, digest in zip(bodies, digests, strict=True):
        if crc32(digest, _PREFIX_CRC).to_bytes(4, "big") != body[_DIGEST_BYTES:]:
            raise FloorBroken("a token that was given out does not check")
    return digests


def _open(path: Path) -> plyvel.DB:
    return plyvel.DB(str(path), create_if_missing=True, **_OPTIONS)
