"""Makes a golden data directory: a small cluster as this version writes it, and ``expected.json``, which says what is in it.

python -m tests.golden.make DIRECTORY

Two owners, in epochs 3 and 2, with values of every kind; tokens of each epoch; a token in which two values met; records in
tables and in logs; and records that n3 has missed, with the hints for it on n1. All nodes were stopped in order. What LevelDB
makes anew at each start is left out, and with it every path of the machine that this was made on (quorumvault pack).
"""

import json
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from chaos.testbed.cluster import NODES, Cluster, run
from quorumvault.crypto.tokens import parse_token
from quorumvault.model import Owner
from quorumvault.protocol import records
from quorumvault.protocol.messages import PROTOCOL_VERSION
from quorumvault.server.storage import layout
from quorumvault.server.storage.data_directory import IDENTITY_FILE, STORE_DIRECTORY
from quorumvault.server.storage.disk_identity import read_identity
from quorumvault.server.storage.leveldb import LevelDBStore

EXPECTED_FILE = "expected.json"
CLINIC, REGISTRY = "clinic", "registry"
#: A node stores hints twice a second (healing/healer.py), and says of none whether it has.
_HINTS_STORED_SECONDS = 2.0

Value = str | int | bool


@dataclass
class Contents:
    """What an owner was told, in every epoch: (token, value)."""

    tokens: list[tuple[str, Value]] = field(default_factory=list)
    collisions: list[tuple[str, Value]] = field(default_factory=list)


@dataclass
class _Filling:
    """A cluster that runs, and what it was told."""

    cluster: Cluster
    contents: dict[str, Contents] = field(default_factory=lambda: {CLINIC: Contents(), REGISTRY: Contents()})

    def tokenize(self, owner: str, values: Sequence[Value], via: str) -> None:
        answer = self.cluster.api(via, owner).tokenize(values)
        assert answer.status == 200, answer
        self.contents[owner].tokens += zip(answer.body["tokens"], values, strict=True)

    def rotate(self, owner: str, epoch: int) -> None:
        answer = self.cluster.api("n2", owner).post("/rotate-epoch", {"from_epoch": epoch})
        assert answer.status == 200, answer


def make(target: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch, Cluster.create(Path(scratch) / "vault", (CLINIC, REGISTRY)) as cluster:
        filling = _Filling(cluster)
        cluster.bring_up()
        _fill(filling)
        cluster.stop()
        _collide(filling)
        cluster.start()  # moves what was in the logs to tables; what follows stays in the logs
        cluster.wait_ready(reachable=3)
        _go_on(filling)
        missed = _miss(filling)
        cluster.stop("n1", "n2")
        _require_hints(cluster.directory / "n1", Path(scratch) / "copy")
        _carry(cluster.directory, target)
        (target / EXPECTED_FILE).write_text(json.dumps(_expected(filling, missed), indent=1, ensure_ascii=True) + "\n")


def _fill(filling: _Filling) -> None:
    kinds: list[Value] = [0, -7, 2**63, True, False, "", " a ", "true", "0", "Zoë", "患者", "x" * 300]
    filling.tokenize(CLINIC, [*kinds, *(f"patient {number}" for number in range(80))], "n1")
    filling.tokenize(REGISTRY, [*kinds, *(f"patient {number}" for number in range(40))], "n2")
    filling.rotate(CLINIC, 1)
    filling.tokenize(CLINIC, ["met another", *(f"patient {number}" for number in range(40, 120))], "n3")


def _go_on(filling: _Filling) -> None:
    filling.rotate(CLINIC, 2)
    filling.rotate(REGISTRY, 1)
    filling.tokenize(CLINIC, [f"patient {number}" for number in range(100, 140)], "n2")
    filling.tokenize(REGISTRY, [f"patient {number}" for number in range(30, 60)], "n1")


def _miss(filling: _Filling) -> int:
    """What n3 has not got, in records; n3 is stopped."""
    values: list[Value] = [f"while n3 was away {number}" for number in range(30)]
    filling.cluster.stop("n3")
    filling.tokenize(CLINIC, values, "n1")
    filling.tokenize(REGISTRY, values, "n1")
    time.sleep(_HINTS_STORED_SECONDS)
    return 2 * len(values)


def _collide(filling: _Filling) -> None:
    """Two values that meet in one token: nobody can have that happen, so its mark is written to all three disks."""
    contents = filling.contents[CLINIC]
    (met,) = [pair for pair in contents.tokens if pair[1] == "met another"]
    contents.tokens.remove(met)
    contents.collisions.append(met)
    parsed = parse_token(met[0])
    assert parsed is not None
    epoch, digest = parsed
    (key,) = layout.record_keys(Owner(CLINIC).id, [epoch], [digest])
    for node in NODES:
        with closing(_store(filling.cluster.directory / node)) as store:
            store.write({key: records.CONFLICT_MARK})


def _require_hints(data: Path, copy: Path) -> None:
    """Looks at a copy: a store that is opened has tables in place of logs."""
    shutil.copytree(data, copy, ignore=shutil.ignore_patterns("admin.sock"))
    with closing(_store(copy)) as store:
        assert next(store.scan(layout.HINT), None) is not None, "n1 stored no hints: make it again"


def _store(data: Path) -> LevelDBStore:
    identity = read_identity(data / IDENTITY_FILE)
    assert identity is not None
    return LevelDBStore.open(data / STORE_DIRECTORY, identity.disk)


def _carry(directory: Path, target: Path) -> None:
    target.mkdir()
    for node in NODES:
        file = directory / f"{node}.tar"
        done = run("pack", str(directory), "--node", node, "-o", str(file))
        assert done.returncode == 0, done.stderr
        with tarfile.open(file) as tar:
            tar.extractall(target, filter="data")


def _expected(filling: _Filling, missed: int) -> dict[str, Any]:
    cluster = filling.cluster
    epochs = {CLINIC: 3, REGISTRY: 2}
    return {
        "note": "secrets and API keys of this directory are for tests alone, and public",
        "release": version("quorumvault"),
        "store_format": layout.STORE_FORMAT,
        "protocol": PROTOCOL_VERSION,
        "records": sum(len(each.tokens) + len(each.collisions) for each in filling.contents.values()),
        "owed_by_n1_to_n3": missed,
        "owners": {
            owner: {
                "api_key": cluster.api_key(owner),
                "epoch": epochs[owner],
                "tokens": contents.tokens,
                "collisions": contents.collisions,
            }
            for owner, contents in filling.contents.items()
        },
    }


if __name__ == "__main__":
    make(Path(sys.argv[1]))
