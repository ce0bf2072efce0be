"""A disk's identity: it is read back whole, it changes atomically, and anything else in its place is refused."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.errors import ConfigError
from quorumvault.model import NODE_NAMES
from quorumvault.protocol.views import NO_DISK, Mode, View
from quorumvault.server.storage import disk_identity

DISKS = {node: bytes([number]) * 16 for number, node in enumerate(NODE_NAMES, 1)}
ACTIVE = disk_identity.DiskIdentity("c0ffee", "n2", DISKS["n2"], 7, Mode.ACTIVE, View(3, DISKS["n3"], DISKS))
JOINING = disk_identity.DiskIdentity("c0ffee", "n2", DISKS["n2"], 0, Mode.JOINING, None)

IDS = st.binary(min_size=16, max_size=16)
NUMBERS = st.integers(1, 2**53 - 1)


@st.composite
def identities(draw: st.DrawFn) -> disk_identity.DiskIdentity:
    """Any possible identity: active in a view that lists it, or joining in any view or none."""
    node = draw(st.sampled_from(NODE_NAMES))
    disks = dict(zip(NODE_NAMES, draw(st.lists(IDS, min_size=3, max_size=3, unique=True)), strict=True))
    view = View(draw(NUMBERS), draw(IDS), disks)
    incarnation, cluster = draw(st.integers(0, 2**53 - 1)), draw(st.text(min_size=1, max_size=128))
    if draw(st.booleans()):
        return disk_identity.DiskIdentity(cluster, node, disks[node], incarnation, Mode.ACTIVE, view)
    return disk_identity.DiskIdentity(cluster, node, draw(IDS), incarnation, Mode.JOINING, draw(st.sampled_from([view, None])))


@given(identity=identities())
def test_an_identity_comes_back(identity: disk_identity.DiskIdentity, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("disk") / "disk.json"
    disk_identity.write_identity(path, identity)
    assert disk_identity.read_identity(path) == identity
    assert os.listdir(path.parent) == ["disk.json"]


def test_a_start_is_counted_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "disk.json"
    assert disk_identity.read_identity(path) is None
    started = disk_identity.raise_incarnation(path, ACTIVE)
    assert started == replace(ACTIVE, incarnation=8) == disk_identity.read_identity(path)


@pytest.mark.parametrize(
    "parts",
    [
        {"node": "n4"},
        {"disk": b"short"},
        {"view": None},
        {"disk": b"another disk's!!"},
        {"view": View(3, NO_DISK, {**DISKS, "n2": b"another disk's!!"})},
        {"view": View(3, NO_DISK, {"n1": DISKS["n2"], "n2": DISKS["n1"], "n3": DISKS["n3"]})},
    ],
)
def test_parts_that_do_not_fit_make_no_active_disk(parts: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        replace(ACTIVE, **parts)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda file: file.update(format=2), "format: expected 1, found 2"),
        (lambda file: file.update(format=2, novelty=True), "format: expected 1, found 2"),
        (lambda file: file.pop("format"), "format"),
        (lambda file: file.update(color="green"), "color"),
        (lambda file: file.update(disk="abc"), "disk"),
        (lambda file: file.update(disk=file["disk"].upper() + "\n"), "disk"),
        (lambda file: file.update(incarnation=-1), "incarnation"),
        (lambda file: file.update(incarnation=1.0e300), "incarnation"),
        (lambda file: file.update(incarnation="7"), "incarnation"),
        (lambda file: file.update(mode="retired"), "mode"),
        (lambda file: file.update(cluster_id=""), "cluster_id"),
        (lambda file: file.update(node="n9"), "n1, n2, n3"),
        (lambda file: file.update(view=None), "active"),
        (lambda file: file["view"].update(number=0), "number"),
        (lambda file: file["view"]["disks"].pop("n3"), "n1, n2, n3"),
        (lambda file: file["view"]["disks"].update(n4="00" * 16), "n1, n2, n3"),
        (lambda file: file["view"]["disks"].update(n3=file["disk"]), "different disk"),
        (lambda file: file["view"].update(joiner=None), "joiner"),
    ],
)
def test_a_file_that_says_something_else_is_refused(
    change: Callable[[dict[str, Any]], object], complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "disk.json"
    disk_identity.write_identity(path, ACTIVE)
    file = json.loads(path.read_bytes())
    change(file)
    path.write_text(json.dumps(file))
    with pytest.raises(ConfigError) as refused:
        disk_identity.read_identity(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert complaint in str(refused.value)


@pytest.mark.parametrize("garbage", [b"", b"null", b"[]", b"{", b"\xff\xfe", b'{"format": 1', b'{"x":' * 100_000, bytes(4096)])
def test_garbage_is_refused(garbage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "disk.json"
    path.write_bytes(garbage)
    with pytest.raises(ConfigError, match=r"disk\.json"):
        disk_identity.read_identity(path)


@given(length=st.integers(0, 10_000))
def test_half_a_file_is_refused(length: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("disk") / "disk.json"
    disk_identity.write_identity(path, ACTIVE)
    whole = path.read_bytes()
    path.write_bytes(whole[: length % (len(whole) - 1)])
    with pytest.raises(ConfigError, match=r"disk\.json"):
        disk_identity.read_identity(path)


def test_the_new_file_is_on_disk_before_it_counts_and_its_name_before_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proves: view and mode are durable."""
    path = tmp_path / "disk.json"
    disk_identity.write_identity(path, JOINING)
    synced: list[tuple[bool, disk_identity.DiskIdentity | None]] = []

    def fsync(descriptor: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), disk_identity.read_identity(path)))

    monkeypatch.setattr(os, "fsync", fsync)
    disk_identity.write_identity(path, ACTIVE)
    assert synced == [(False, JOINING), (True, ACTIVE)]


def test_a_data_directory_has_one_owner_until_its_block_ends_however_that_ends(tmp_path: Path) -> None:
    refused = pytest.raises(ConfigError, match=f"{tmp_path}: expected to be the only process")
    with disk_identity.lock_data_directory(tmp_path), refused, disk_identity.lock_data_directory(tmp_path):
        pass
    with pytest.raises(ZeroDivisionError), disk_identity.lock_data_directory(tmp_path):
        raise ZeroDivisionError
    with disk_identity.lock_data_directory(tmp_path):
        pass


HOLDER = """
import sys
from pathlib import Path
from quorumvault.server.storage.disk_identity import lock_data_directory
with lock_data_directory(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(ConfigError, match="another one runs"), disk_identity.lock_data_directory(tmp_path):
            pass
        holder.kill()
        holder.wait()
    with disk_identity.lock_data_directory(tmp_path):
        pass


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "disk.json").mkdir()
    with pytest.raises(ConfigError, match=r"disk\.json: expected a readable disk identity"):
        disk_identity.read_identity(tmp_path / "disk.json")


def test_no_directory_is_not_made_for_a_lock(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="missing: expected a data directory"),
        disk_identity.lock_data_directory(tmp_path / "missing"),
    ):
        pass
    assert os.listdir(tmp_path) == []
