"""``init --replace``: the old disk is set aside, the new one is empty and joining, and nothing else changes."""

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO
from unittest.mock import Mock

import pytest
from click.testing import CliRunner, Result

from quorumvault import durable
from quorumvault.cli import main
from quorumvault.config.cluster import load_cluster, load_node
from quorumvault.errors import ConfigError, DirectoryInUse, Refused, StorageFailed
from quorumvault.protocol.views import Mode
from quorumvault.server.offline import replace_disk as replacement
from quorumvault.server.offline.replace_disk import Replaced, replace_disk
from quorumvault.server.storage.data_directory import open_disk
from quorumvault.server.storage.disk_identity import lock_data_directory
from quorumvault.server.storage.leveldb import LevelDBStore
from tests.rigs.made import files, made
from tests.unit.cli.test_status import health, node

HOSTS = ["127.0.0.11", "127.0.0.12", "127.0.0.13"]


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    return made(tmp_path / "vault", hosts=HOSTS)


def command(vault: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["init", str(vault), "--replace", *arguments])


def new_disk(vault: Path, node: str = "n2", host: str | None = None) -> Replaced:
    return replace_disk(vault, node, host, entropy=os.urandom)


@pytest.mark.parametrize("is_mounted", [False, True])
def test_a_new_disk_is_empty_and_joining_and_the_old_one_is_set_aside_whole(
    vault: Path, monkeypatch: pytest.MonkeyPatch, is_mounted: bool
) -> None:
    """A directory that is a mount point cannot be renamed, so its contents are set aside inside it."""
    before = {name: data for name, data in files(vault).items() if name != "n2/lock"}
    monkeypatch.setattr(Path, "is_mount", lambda path: is_mounted and path == vault / "n2")
    first, second = new_disk(vault), new_disk(vault)
    around = vault / "n2" if is_mounted else vault
    assert (first.quarantined, second.quarantined) == (around / "n2.set-aside-1", around / "n2.set-aside-2")
    aside = {f"n2/{name}": data for name, data in files(around / "n2.set-aside-1").items() if name != "lock"}
    others = {name: data for name, data in files(vault).items() if not name.startswith("n2")}
    assert aside | others == before
    disk = open_disk(load_node(vault / "cluster.yaml", "n2"))
    assert (disk.identity.disk, disk.identity.mode, disk.identity.view) == (second.disk, Mode.JOINING, None)
    assert disk.store is not None
    disk.store.close()


def test_a_directory_that_is_gone_needs_nothing_set_aside(vault: Path) -> None:
    (vault / "n3").rename(vault / "elsewhere")
    assert new_disk(vault, "n3").quarantined is None
    assert (vault / "n3").stat().st_mode & 0o777 == 0o700


def test_a_node_that_runs_is_left_alone(vault: Path) -> None:
    with lock_data_directory(vault / "n2"):
        before = files(vault)
        with pytest.raises(Refused, match="n2 runs with this data"):
            new_disk(vault)
        assert files(vault) == before


@pytest.mark.parametrize("before", ["there", "gone", "mounted"])
def test_the_new_disk_is_owned_until_all_is_done(vault: Path, monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    """A supervisor may start the node at any moment. Between the making of identity and store, it would find half a disk."""
    if before == "gone":
        (vault / "n2").rename(vault / "elsewhere")
    if before == "mounted":
        monkeypatch.setattr(Path, "is_mount", lambda path: path == vault / "n2")
    refused: list[str] = []

    def tried(step: str, directory: Path) -> None:
        with pytest.raises(DirectoryInUse), lock_data_directory(directory):
            pass
        refused.append(step)

    def create(path: Path, disk: bytes) -> LevelDBStore:
        tried("made", path.parent)
        return real_create(path, disk)

    def replacing(file: Path) -> AbstractContextManager[BinaryIO]:
        tried("named", vault / "n2")
        return real_replacing(file)

    real_create, real_replacing = LevelDBStore.create, durable.replacing
    monkeypatch.setattr(LevelDBStore, "create", create)
    monkeypatch.setattr(durable, "replacing", replacing)
    new_disk(vault, host="10.0.0.4")
    assert refused == ["made", "named"]
    with lock_data_directory(vault / "n2"):
        pass


def test_a_disk_that_cannot_be_made_takes_nobody_s_place(vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(vault)
    monkeypatch.setattr(LevelDBStore, "create", Mock(side_effect=StorageFailed("No space left on device")))
    with pytest.raises(StorageFailed):
        new_disk(vault)
    assert {name: data for name, data in files(vault).items() if name != "n2/lock"} == before
    assert sorted(path.name for path in vault.glob("n2*")) == ["n2"]


def test_a_node_that_makes_a_directory_of_that_name_meanwhile_is_left_alone(vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `serve` process that finds no directory makes one, and owns it from then on."""

    def quarantine(path: Path) -> Path:
        aside = real(path)
        path.mkdir()
        (path / "lock").touch()
        return aside

    real: Callable[[Path], Path] = vars(replacement)["quarantine"]
    monkeypatch.setattr(replacement, "quarantine", quarantine)
    with pytest.raises(Refused, match=r"put there meanwhile .* what was there before is .*/n2\.set-aside-1"):
        new_disk(vault)
    assert [path.name for path in (vault / "n2").iterdir()] == ["lock"]
    assert sorted(path.name for path in vault.glob("n2*")) == ["n2", "n2.set-aside-1"]


@pytest.mark.parametrize(("host", "api"), [("10.0.0.4", "10.0.0.4:9000"), ("fd00::4", "[fd00::4]:9000"), ("db2", "db2:9000")])
def test_another_host_changes_the_addresses_of_that_node_and_no_other_line(vault: Path, host: str, api: str) -> None:
    file = vault / "cluster.yaml"
    file.chmod(0o640)
    before = file.read_text().splitlines()
    new = new_disk(vault, host=host)
    changed = [(old, new) for old, new in zip(before, file.read_text().splitlines(), strict=True) if old != new]
    assert [old.strip() for old, _ in changed] == ['api: "127.0.0.12:9000"', 'peer: "127.0.0.12:9010"']
    assert (str(new.endpoints.api), load_cluster(file).nodes["n2"]) == (api, new.endpoints)
    assert file.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("host", "more", "words"),
    [
        ("10.0.0.4", '\n    listen_api: "127.0.0.12:9000"', r"nodes\.n2\.listen_api"),
        (HOSTS[0], "", r"cluster\.yaml: nodes\.n2\.api: expected an address of its own"),
    ],
)
def test_addresses_that_are_not_for_a_program_to_choose(vault: Path, host: str, more: str, words: str) -> None:
    """A listen address is left to the operator, and a host that belongs to another node is refused. Nothing changes."""
    file, line = vault / "cluster.yaml", '    api: "127.0.0.12:9000"'
    file.write_text(file.read_text().replace(line, line + more))
    before = files(vault)
    with pytest.raises((Refused, ConfigError), match=words):
        new_disk(vault, host=host)
    assert files(vault) == before


def test_only_a_node_of_a_cluster_can_be_replaced(vault: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no node 'n4'"):
        new_disk(vault, "n4")
    with pytest.raises(ConfigError):
        replace_disk(tmp_path / "nothing", "n2", None, entropy=os.urandom)


def test_the_command_says_what_was_set_aside_and_what_to_do(vault: Path) -> None:
    result = command(vault, "n2", "--host", "10.0.0.4")
    assert result.exit_code == 0, result.output
    for words in ("n2.set-aside-1", "SIGHUP", f"quorumvault serve --config {vault}/cluster.yaml --node n2"):
        assert words in result.output


def test_the_command_for_machines(vault: Path) -> None:
    answer = json.loads(command(vault, "n3", "--json").output)
    assert answer["set_aside"] == str(vault / "n3.set-aside-1")
    assert (answer["node"], answer["api"], answer["peer"]) == ("n3", "http://127.0.0.13:9000", "127.0.0.13:9010")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("n2", "--owner", "clinic"), "--replace goes with"),
        (("n2", "--base-port", "9000"), "--replace goes with"),
        (("n2", "--host", "0.0.0.0"), "--host"),
        (("n2", "--host", "a b"), "--host"),
    ],
)
def test_arguments_that_make_no_sense_are_a_usage_error(vault: Path, arguments: tuple[str, ...], words: str) -> None:
    before = files(vault)
    result = command(vault, *arguments)
    assert result.exit_code == 2
    assert words in result.output
    assert files(vault) == before


def test_the_new_disk_can_be_packed(vault: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    disk = new_disk(vault, host="10.0.0.4").disk
    file = vault / "cluster.yaml"
    file.write_text(file.read_text().replace("# insecure_http: false ", "insecure_http: true "))
    result = CliRunner().invoke(main, ["pack", str(vault), "--node", "n2", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["disk"] == disk.hex()


def test_what_another_node_cannot_read_may_be_on_the_disk_that_would_be_replaced(vault: Path) -> None:
    """Nodes that do not answer are no reason to refuse: the new disk asks again before it takes the old one's place."""
    file = vault / "cluster.yaml"
    text, before = file.read_text(), files(vault / "n2")
    with node((200, health("ok", 3, damaged=True))) as url:
        file.write_text(text.replace("127.0.0.11:9000", url.removeprefix("http://")))
        refused = command(vault, "n2")
        assert refused.exit_code == 1
        assert "n1 cannot read all that it has: what is in the damaged blocks may be on the disk of n2" in refused.stderr
        assert files(vault / "n2") == before
        done = command(vault, "n2", "--accept-loss", "--json")
    answer = json.loads(done.stdout)
    assert (answer["damaged"], answer["unsure"]) == (["n1"], ["n3"])
    assert CliRunner().invoke(main, ["init", str(vault / "new"), "--accept-loss"]).exit_code == 2


def test_where_nobody_says_so_is_told(vault: Path) -> None:
    result = command(vault, "n2")
    assert result.exit_code == 0
    assert "n1 does not answer and n3 does not answer: it is not known whether all that is there can be read" in result.output
