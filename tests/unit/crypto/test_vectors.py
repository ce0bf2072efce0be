"""A second implementation of the token format in docs/token-format.md, from RFC building blocks, checked against the vectors.

Only AES itself, SHA-256, BLAKE2b and CRC-32 come from libraries; HKDF (RFC 5869) and AES-SIV (RFC 5297) are written out.
"""

import hashlib
import hmac
import json
import zlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, ECB

from tests import ROOT
from tests.vectors.generate import vectors

FILE = ROOT / "tests" / "vectors" / "tokens.json"
VECTORS: list[dict[str, Any]] = json.loads(FILE.read_text())["vectors"]


def hkdf(secret: bytes, info: bytes, length: int) -> bytes:
    key = hmac.digest(bytes(32), secret, "sha256")
    blocks, block = b"", b""
    while len(blocks) < length:
        block = hmac.digest(key, block + info + bytes([len(blocks) // 32 + 1]), "sha256")
        blocks += block
    return blocks[:length]


def xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def double(block: bytes) -> bytes:
    shifted = int.from_bytes(block) << 1
    return ((shifted ^ 0x87) & (2**128 - 1) if shifted >> 128 else shifted).to_bytes(16)


def cmac(key: bytes, message: bytes) -> bytes:
    encryptor = Cipher(AES(key), ECB()).encryptor()
    k1 = double(encryptor.update(bytes(16)))
    whole = bool(message) and len(message) % 16 == 0
    padded = message if whole else message + b"\x80" + bytes(15 - len(message) % 16)
    last = xor(padded[-16:], k1 if whole else double(k1))
    state = bytes(16)
    for at in range(0, len(padded) - 16, 16):
        state = encryptor.update(xor(state, padded[at : at + 16]))
    return encryptor.update(xor(state, last))


def siv(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    mac_key, ctr_key = key[:32], key[32:]
    state = xor(double(cmac(mac_key, bytes(16))), cmac(mac_key, associated))
    tag = cmac(mac_key, plaintext[:-16] + xor(plaintext[-16:], state))
    counter = bytearray(tag)
    counter[8] &= 0x7F
    counter[12] &= 0x7F
    return tag + Cipher(AES(ctr_key), CTR(bytes(counter))).encryptor().update(plaintext)


def canonical(spelled: str) -> bytes:
    value = json.loads(spelled)
    if value is True or value is False:
        return b"t" if value else b"f"
    return b"i%d" % value if isinstance(value, int) else b"s" + value.encode()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['owner']}-{v['epoch']}-{v['json'][:12]}")
def test_an_implementation_from_the_document_agrees(vector: dict[str, Any]) -> None:
    secret, name, epoch = bytes.fromhex(vector["master_secret"]), vector["owner"].encode(), vector["epoch"]
    form = canonical(vector["json"])
    assert form.hex() == vector["canonical"]
    scope = len(name).to_bytes(2) + name + epoch.to_bytes(4)
    digest = hashlib.blake2b(form, key=hkdf(secret, b"quorumvault/1 token\0" + scope, 32), digest_size=20).digest()
    assert digest.hex() == vector["digest"]
    prefix = f"qv_{epoch}_"
    check = zlib.crc32(prefix.encode() + digest).to_bytes(4)
    assert prefix + (digest + check).hex() == vector["token"]
    owner_id = hashlib.blake2b(name, digest_size=16, person=b"qv owner id").digest()
    assert owner_id.hex() == vector["owner_id"]
    plaintext = form + b"\x80"
    plaintext += bytes(-len(plaintext) % 16)
    seal_key = hkdf(secret, b"quorumvault/1 seal\0" + scope, 64)
    assert siv(seal_key, plaintext, owner_id + epoch.to_bytes(4) + digest).hex() == vector["sealed"]


def test_the_projects_own_code_still_makes_these_vectors() -> None:
    assert json.loads(json.dumps(vectors())) == VECTORS
