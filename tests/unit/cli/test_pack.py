"""``pack``: what the tar contains, what it omits, and what is refused. tests/cluster/test_hosts.py runs it on other hosts."""

import io
import json
import os
import stat
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from quorumvault.cli import main
from quorumvault.cli.dev import prepare
from quorumvault.config.api_keys import load_keys
from quorumvault.server.storage.disk_identity import read_identity
from tests.unit.cli.test_status import health, node


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    prepare(tmp_path / "vault", 9000)  # with secrets/dev.key
    monkeypatch.chdir(tmp_path)
    return tmp_path / "vault"


def pack(vault: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["pack", str(vault), *arguments])


def names(tar: Path) -> list[str]:
    with tarfile.open(tar) as packed:
        return packed.getnames()


def test_one_node_s_files_in_order(vault: Path) -> None:
    for left_behind in ("events.jsonl", "events.jsonl.1", "lock", "store/LOG", "store/LOG.old", "store/LOCK"):
        (vault / "n2" / left_behind).write_text("left behind")
    (vault / "n2" / "more").mkdir()
    (vault / "n2" / "more" / "state").write_text("whatever a later version keeps here")
    (vault / "logs").mkdir()
    result = pack(vault, "--node", "n2")
    assert result.exit_code == 0, result.output
    assert "n2.tar has what n2 needs: 12 files" in result.output
    found = names(Path("n2.tar"))
    assert found == sorted(found, key=Path)
    store = [name for name in found if name.startswith("n2/store/")]
    assert [name for name in found if name not in store] == [
        *("api_keys.yaml", "cluster.yaml", "fields.yaml"),
        *("n2", "n2/disk.json", "n2/more", "n2/more/state", "n2/store"),
        *("secrets", "secrets/ca.pem", "secrets/master-s1.key", "secrets/n2.pem", "secrets/revoked.pem"),
    ]
    assert {Path(name).name for name in store} == {"CURRENT", "MANIFEST-000002", "000003.log"}


def test_modes_are_kept_owners_are_not_and_the_same_directory_makes_the_same_bytes(vault: Path) -> None:
    (vault / "api_keys.yaml").chmod(0o640)
    before = os.umask(0)
    try:
        for output in ("a.tar", "b.tar"):
            assert pack(vault, "--node", "n1", "-o", output).exit_code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path("a.tar").stat().st_mode) == 0o600
    assert Path("a.tar").read_bytes() == Path("b.tar").read_bytes()
    with tarfile.open("a.tar") as packed:
        members = packed.getmembers()
        assert all((member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "") for member in members)
        assert all(member.mode == stat.S_IMODE((vault / member.name).stat().st_mode) for member in members)
        for member in filter(tarfile.TarInfo.isfile, members):
            content = packed.extractfile(member)
            assert content is not None
            assert content.read() == (vault / member.name).read_bytes()


def test_for_machines_and_through_a_pipe(vault: Path) -> None:
    identity = read_identity(vault / "n3" / "disk.json")
    assert identity is not None
    answer = json.loads(pack(vault, "--node", "n3", "--json").output)
    assert {**answer, "bytes": 0} == {
        "tar": "n3.tar",
        "node": "n3",
        "disk": identity.disk.hex(),
        "files": 11,
        "bytes": 0,
        "of_host": [],
    }
    piped = pack(vault, "--node", "n3", "-o", "-")
    assert piped.exit_code == 0
    with tarfile.open(fileobj=io.BytesIO(piped.stdout_bytes)) as packed:
        assert packed.getnames() == names(Path("n3.tar"))
    assert "tar -xf the tar" in piped.stderr
    assert pack(vault, "--node", "n3", "-o", "-", "--json").exit_code == 2


def test_a_file_that_is_there_stays(vault: Path) -> None:
    Path("n1.tar").write_text("precious")
    refused = pack(vault, "--node", "n1")
    assert (refused.exit_code, Path("n1.tar").read_text()) == (2, "precious")
    assert pack(vault, "--node", "n1", "--force").exit_code == 0
    assert len(names(Path("n1.tar"))) > 9


def test_what_cannot_be_packed(vault: Path) -> None:
    (vault / "n1" / "disk.json").unlink()
    assert "there is no disk of n1 here" in pack(vault, "--node", "n1").stderr
    assert "no node 'n9' in this cluster" in pack(vault, "--node", "n9").stderr
    assert "cluster.yaml" in pack(vault / "secrets", "--node", "n1").stderr
    assert not list(vault.parent.glob("*.tar"))


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [("fields", "# fields: fields.yaml", "fields: ../fields.yaml"), ("data", "# data: .", "data: /elsewhere")],
)
def test_what_lies_outside_of_the_directory_cannot_be_carried_with_it(vault: Path, key: str, old: str, new: str) -> None:
    text = (vault / "cluster.yaml").read_text()
    assert old in text
    (vault / "cluster.yaml").write_text(text.replace(old, new))
    refused = pack(vault, "--node", "n1")
    assert refused.exit_code == 1
    assert f"{key}: expected a place below {vault}" in refused.stderr


def test_an_older_key_file_is_told_as_far_as_nodes_answer(vault: Path) -> None:
    """At n1's address is a node with other keys, then one with these keys, then one that does not report its keys."""
    file = vault / "cluster.yaml"
    text, mine = file.read_text(), load_keys(vault / "api_keys.yaml").fingerprint
    for keys, told in (({"keys": "0123456789abcdef"}, True), ({"keys": mine}, False), ({}, False)):
        with node((200, health("ok", 3, **keys))) as url:
            file.write_text(text.replace("127.0.0.1:9000", url.removeprefix("http://")))
            packed = pack(vault, "--node", "n3", "-o", "-")
        assert packed.exit_code == 0
        assert ("the API keys of n1 are others than those in" in packed.stderr) is told
