"""Writes tokens.json beside this file, from the project's own code. Run once a format version; the file is then a promise.

python -m tests.vectors.generate
"""

import json
from pathlib import Path

from quorumvault.crypto import canonical
from quorumvault.crypto.keys import Keyring
from quorumvault.crypto.tokens import format_token
from quorumvault.model import Owner

SECRETS = ("00" * 32, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
VALUES = (
    '"999-17-5017"',
    '""',
    '"02155"',
    '"2155"',
    "2155",
    "-7",
    "0",
    "true",
    "false",
    '"true"',
    '"Zoë"',
    '"Zoe\\u0308"',
    '"患者"',
    '" a "',
)
VALUES_AT_BLOCK_BORDERS = tuple(json.dumps("x" * length) for length in (14, 15, 16, 31, 32))
HUGE = "123456789" * 12


def vectors() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for secret in SECRETS:
        keyring = Keyring("m1", bytes.fromhex(secret))
        for owner, epoch in (("acme", 1), ("acme", 2), ("st.mary-hospital_7", 1), ("acme", 2**32 - 1)):
            keys = keyring.epoch_keys(Owner(owner), epoch)
            for spelled in (*VALUES, *VALUES_AT_BLOCK_BORDERS, HUGE):
                form = canonical.from_json(spelled.encode())
                assert form is not None
                (digest,) = keys.digests([form])
                (sealed,) = keys.sealer.seal([form], [digest])
                rows.append(
                    {
                        "master_secret": secret,
                        "owner": owner,
                        "owner_id": Owner(owner).id.hex(),
                        "epoch": epoch,
                        "json": spelled,
                        "canonical": form.hex(),
                        "digest": digest.hex(),
                        "token": format_token(epoch, digest),
                        "sealed": sealed.hex(),
                    }
                )
    return rows


if __name__ == "__main__":
    target = Path(__file__).with_name("tokens.json")
    target.write_text(json.dumps({"format": 1, "vectors": vectors()}, indent=1, ensure_ascii=True) + "\n")
