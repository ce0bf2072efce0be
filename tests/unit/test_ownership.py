"""Who owns what a command makes: owners and modes are kept, whoever runs the command, and no link redirects it elsewhere.

As root, the tests give files to another user, as on a machine where nodes run under a user of their own. Any other user cannot
give files away; then the tests record the calls, or show that no file changes hands.
"""

import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from quorumvault import ownership
from quorumvault.cli import main
from quorumvault.config.key_changes import create_key, new_keyfile, revoke_key
from quorumvault.errors import ConfigError
from quorumvault.server.storage.disk_identity import lock_data_directory
from tests.rigs.made import NOW, made

IS_ROOT = os.geteuid() == 0
#: The user that a node runs as.
THEM = 12345 if IS_ROOT else os.geteuid()


def give(*paths: Path) -> None:
    if IS_ROOT:
        for path in paths:
            os.chown(path, THEM, THEM, follow_symlinks=False)


def give_all(folder: Path) -> None:
    give(folder, *folder.rglob("*"))


def owners(folder: Path) -> set[int]:
    return {path.lstat().st_uid for path in (folder, *folder.rglob("*"))}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def any_umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    return made(tmp_path / "vault")


def test_a_key_file_keeps_owner_and_mode(tmp_path: Path, any_umask: None) -> None:
    path = tmp_path / "api_keys.yaml"
    new_keyfile(path)
    path.chmod(0o640)
    give(path)
    before = path.stat()
    key = create_key(path, "clinic", now=NOW, entropy=secrets.token_bytes, new_owner=True)
    revoke_key(path, key.id, now=NOW)
    after = path.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert list(tmp_path.iterdir()) == [path]


def test_a_key_file_that_is_a_link_is_replaced_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    new_keyfile(tmp_path / "etc" / "keys")
    link = tmp_path / "api_keys.yaml"
    link.symlink_to("etc/keys")
    create_key(link, "clinic", now=NOW, entropy=secrets.token_bytes, new_owner=True)
    assert link.is_symlink()
    assert "clinic" in (tmp_path / "etc" / "keys").read_text()


def of(uid: int, mode: int, gid: int = 4321) -> os.stat_result:
    return os.stat_result((stat.S_IFREG | mode, 0, 0, 1, uid, gid, 0, 0, 0, 0))


def test_the_owner_is_asked_for_before_the_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(os, "fchown", lambda _, *owner: calls.append(owner))
    monkeypatch.setattr(os, "fchmod", lambda _, mode: calls.append((mode,)))
    with (tmp_path / "new").open("w") as file:
        ownership.take_after(file.fileno(), tmp_path / "old", of(54321, 0o644), widest=0o740)
    assert calls == [(54321, 4321), (0o640,)]


@pytest.mark.parametrize(("uid", "mode", "refused"), [(54321, 0o600, True), (None, 0o640, True), (None, 0o600, False)])
def test_an_owner_that_cannot_be_kept_is_an_error_that_says_who(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int | None, mode: int, refused: bool
) -> None:
    """If ``uid`` is None, the file belongs to this user, and to a group that the user is not in."""

    def forbidden(descriptor: int, owner: int, group: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchown", forbidden)
    before = of(os.geteuid() if uid is None else uid, mode)
    with (tmp_path / "new").open("w") as file:
        if refused:
            with pytest.raises(ConfigError, match=r"old: belongs to .*: run this as .* or root"):
                ownership.take_after(file.fileno(), tmp_path / "old", before)
        else:
            ownership.take_after(file.fileno(), tmp_path / "old", before)


def test_a_new_disk_is_whose_the_old_one_was(vault: Path, any_umask: None) -> None:
    give_all(vault)
    (vault / "n2").chmod(0o750)
    (vault / "cluster.yaml").chmod(0o640)
    for arguments in ([], ["--host", "127.0.0.4"]):
        replaced = CliRunner().invoke(main, ["init", str(vault), "--replace", "n2", *arguments])
        assert replaced.exit_code == 0, replaced.output
        assert owners(vault) == {THEM}
        assert (mode(vault / "n2"), mode(vault / "cluster.yaml")) == (0o750, 0o640)


def test_a_new_disk_where_there_was_none_is_whose_the_folder_is(vault: Path) -> None:
    give_all(vault)
    (vault / "n2").rename(vault.parent / "away")
    assert CliRunner().invoke(main, ["init", str(vault), "--replace", "n2"]).exit_code == 0
    assert owners(vault) == {THEM}
    assert mode(vault / "n2") == 0o700


def test_what_recover_and_pack_leave_behind_is_the_node_s(vault: Path, any_umask: None) -> None:
    give_all(vault)
    for command in (["recover", str(vault)], ["pack", str(vault), "--node", "n1", "-o", str(vault.parent / "n1.tar")]):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
        assert owners(vault) == {THEM}
    assert mode(vault.parent / "n1.tar") == 0o600


def test_a_cluster_made_in_somebody_s_folder_is_theirs(tmp_path: Path, any_umask: None) -> None:
    (tmp_path / "vault").mkdir(mode=0o700)
    give(tmp_path / "vault")
    for place in ("vault/a", "vault/deep/er/b"):
        assert CliRunner().invoke(main, ["init", str(tmp_path / place)]).exit_code == 0
    assert owners(tmp_path / "vault") == {THEM}
    assert mode(tmp_path / "vault" / "deep") & 0o022 == 0


def test_a_lock_that_root_makes_is_the_node_s(tmp_path: Path) -> None:
    give(tmp_path)
    with lock_data_directory(tmp_path):
        assert owners(tmp_path) == {THEM}


def test_handing_over_follows_no_link_and_leaves_files_with_two_names(tmp_path: Path) -> None:
    precious, folder = tmp_path / "precious", tmp_path / "made"
    precious.mkdir()
    (precious / "file").write_text("root's own")
    (folder / "store").mkdir(parents=True)
    (folder / "store" / "made").write_text("")
    (folder / "link").symlink_to(precious / "file")
    (folder / "folder").symlink_to(precious)
    os.link(precious / "file", folder / "second")
    os.mkfifo(folder / "pipe")
    ownership.hand_over(folder, of(THEM, 0))
    assert owners(precious) == {os.geteuid()}
    assert {(folder / name).stat().st_uid for name in ("store", "store/made", ".")} == {THEM}


def test_a_link_of_another_user_s_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "absolute").symlink_to(tmp_path / "link" / "new")
    assert ownership.followed(tmp_path / "absolute") == tmp_path / "real" / "new"
    assert ownership.followed(tmp_path / "link" / ".." / "other") == tmp_path / "other"
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(ConfigError, match="circle"):
        ownership.followed(tmp_path / "circle")
    if IS_ROOT:
        give(tmp_path / "link")
    else:
        monkeypatch.setattr(os, "geteuid", lambda: THEM + 1)
    for path in ("link", "link/below", "absolute"):
        with pytest.raises(ConfigError, match=r"is a link that .* made: name the place itself"):
            ownership.followed(tmp_path / path)


def test_what_somebody_put_into_a_public_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    public, theirs = tmp_path / "public", tmp_path / "public" / "out.csv"
    public.mkdir()
    public.chmod(0o1777)
    theirs.write_text("")
    ownership.require_replaceable(theirs)
    ownership.require_replaceable(public / "new")
    found = of(THEM + 1, 0o666)
    original = Path.lstat
    monkeypatch.setattr(Path, "lstat", lambda path: found if path == theirs else original(path))
    with pytest.raises(ConfigError, match="in a folder where everybody can put files"):
        ownership.require_replaceable(theirs)


@pytest.mark.parametrize(
    ("owner", "group", "mode", "me", "is_open"),
    [
        (1000, 1000, 0o600, 1000, False),
        (1000, 1000, 0o640, 1000, True),
        (0, 2000, 0o640, 1000, False),  # a mounted secret, with fsGroup
        (0, 2000, 0o440, 0, False),
        (0, 2000, 0o660, 1000, True),
        (0, 2000, 0o644, 1000, True),
        (0, 0, 0o640, 0, True),
        (1000, 1000, 0o601, 1000, True),
    ],
)
def test_who_may_read_a_secret(
    monkeypatch: pytest.MonkeyPatch, owner: int, group: int, mode: int, me: int, is_open: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: me)
    assert ownership.is_open_to_others(of(owner, mode, group)) is is_open
