"""A node does not start with files that others can change; one line says which files, why, and what to do."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from quorumvault.cli import main
from quorumvault.config.cluster import load_place
from quorumvault.config.tampering import guarded
from quorumvault.errors import ConfigError
from tests.rigs.made import made

FILES = (
    "cluster.yaml",
    "fields.yaml",
    "api_keys.yaml",
    "secrets/n2.pem",
    "secrets/ca.pem",
    "secrets/revoked.pem",
    "secrets/master-s1.key",
)


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    return made(tmp_path / "vault")


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> int:
    """Another user that owns files here: as root, one who is given some; otherwise this user, seen by a process of another."""
    if os.geteuid() == 0:
        return 12345
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    return mine


def check(vault: Path) -> None:
    load_place(vault / "cluster.yaml", "n2").require_guarded()


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_others_can_write(vault: Path, name: str, mode: int) -> None:
    (vault / name).chmod(mode)
    who = "everybody" if mode & 2 else "group"
    with pytest.raises(
        ConfigError, match=rf"{vault / name}: {who}.* can write it \(mode {mode:04o}\), .*: chmod go-w it"
    ) as refused:
        check(vault)
    assert "\n" not in str(refused.value)


def test_serve_refuses_in_one_line_and_ends_with_1(vault: Path) -> None:
    (vault / "api_keys.yaml").chmod(0o662)
    refused = CliRunner().invoke(main, ["serve", "--config", str(vault / "cluster.yaml"), "--node", "n1"])
    assert refused.exit_code == 1
    assert refused.stderr.startswith(f"quorumvault: {vault}/api_keys.yaml: everybody can write it")
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640, 0o440])
def test_what_a_group_or_everybody_may_read(vault: Path, mode: int) -> None:
    for name in FILES[:3]:
        (vault / name).chmod(mode)
    check(vault)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_user_s(vault: Path, name: str, stranger: int) -> None:
    if os.geteuid() == 0:
        os.chown(vault / name, stranger, stranger)
    with pytest.raises(ConfigError, match=r"owns it and can change it, and the node runs as .*: run it as .*, or chown it"):
        guarded(vault / name)


@pytest.mark.parametrize("folder", [".", "secrets"])
def test_a_folder_in_which_others_can_put_files(vault: Path, folder: str) -> None:
    (vault / folder).chmod(0o777)
    with pytest.raises(ConfigError, match=r"everybody can put other files into it \(mode 0777\)"):
        check(vault)
    (vault / folder).chmod(0o1777)
    check(vault)


def test_a_link_is_as_strong_as_the_folders_at_its_ends(vault: Path) -> None:
    (vault / "data").mkdir()
    (vault / "api_keys.yaml").rename(vault / "data" / "keys")
    (vault / "api_keys.yaml").symlink_to("data/keys")  # as Kubernetes mounts a secret
    check(vault)
    (vault / "data").chmod(0o707)
    with pytest.raises(ConfigError, match=f"{vault / 'data'}: everybody"):
        check(vault)


@pytest.fixture(params=[0o000, 0o002, 0o022], ids=oct)
def any_umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_what_init_makes_can_be_started_whatever_the_umask_is(tmp_path: Path, any_umask: None) -> None:
    (tmp_path / "there").mkdir(mode=0o777)
    for place in ("there", "new", "deep/new"):
        assert CliRunner().invoke(main, ["init", str(tmp_path / place)]).exit_code == 0
        check(tmp_path / place)


def test_init_refuses_a_folder_that_it_cannot_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path, mode: int) -> None:
        raise PermissionError

    tmp_path.chmod(0o777)
    monkeypatch.setattr(Path, "chmod", forbidden)
    refused = CliRunner().invoke(main, ["init", str(tmp_path)])
    assert refused.exit_code == 1
    assert "others can write in it" in refused.stderr
    assert not list(tmp_path.iterdir())


def test_a_reload_refuses_them_too(vault: Path) -> None:
    assert guarded(vault / "api_keys.yaml") == vault / "api_keys.yaml"
    with pytest.raises(ConfigError, match="expected a file that can be read"):
        guarded(vault / "gone.yaml")
