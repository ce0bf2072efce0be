"""Where outputs go and who owns them then: folders, groups, access lists, DuckDB files, and paths that others move during a run.

As root, the tests give files to another user. Other users cannot, so for them these tests check that nothing changes.
"""

import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from quorumvault.errors import ConfigError
from quorumvault.files.job import Job
from quorumvault.files.outputs import Outputs
from quorumvault.files.sources import InputsError
from quorumvault.files.work_folder import RunRefused, work_path
from tests.rigs.tables import Desk, job, names, write

pytestmark = pytest.mark.slow

ROWS = [(f"name {number}", "here") for number in range(10)]
IS_ROOT = os.geteuid() == 0
THEM = 12345 if IS_ROOT else os.geteuid()
#: acl(5)'s names for the entries of a list.
USER_OBJ, USER, GROUP_OBJ, MASK, OTHER, NOBODY = 0x01, 0x02, 0x04, 0x10, 0x20, 0xFFFFFFFF


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path | str) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


def share(path: Path, *, default: bool = False) -> None:
    """Sets an access list on a file, or a folder's default for new files: user 1234 may read, the group may not."""
    entries = [(USER_OBJ, 6, NOBODY), (USER, 4, 1234), (GROUP_OBJ, 0, NOBODY), (MASK, 4, NOBODY), (OTHER, 0, NOBODY)]
    content = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(path, f"system.posix_acl_{'default' if default else 'access'}", content)


def entries(path: Path) -> dict[int, int]:
    """The permissions of each kind of entry in a file's access list."""
    try:
        content = os.getxattr(path, "system.posix_acl_access")[4:]
    except OSError:
        return {}
    return {kind: allowed for kind, allowed, _ in struct.iter_unpack("<HHI", content)}


def made(desk: Desk, name: str, file_mode: int = 0o644) -> Path:
    """Makes a file of tokens."""
    write(Path(f"values-{name}"), ROWS)
    desk.run(job(f"values-{name}", Path(name)))
    Path(name).chmod(file_mode)
    return Path(name)


@pytest.mark.parametrize("operation", ["tokenize", "detokenize"])
def test_folders_are_made_as_the_input_s_are(operation: str, desk: Desk, tmp_path: Path) -> None:
    for place in ("lake/open", "lake/closed/deep"):
        Path(place).mkdir(parents=True)
        write(Path(place, "a.csv"), ROWS)
    Path("lake/closed").chmod(0o700)
    Path("new").mkdir()
    desk.run(job("lake", tmp_path / "new" / "out", operation))
    found = {str(path.relative_to("new")): mode(path) for path in Path("new").rglob("*") if path.is_dir()}
    assert found == {"out": 0o755, "out/open": 0o755, "out/closed": 0o700, "out/closed/deep": 0o755}


@pytest.mark.parametrize("group", [THEM if IS_ROOT else os.getegid(), os.getegid()], ids=["another", "own"])
def test_a_folder_gives_its_group(group: int, desk: Desk, tmp_path: Path) -> None:
    """As to all files made in it. The group gets no permissions unless it is the input's group."""
    Path("lake/new").mkdir(parents=True)
    for name in ("a.csv", "new/b.csv"):
        write(Path("lake", name), ROWS)
        Path("lake", name).chmod(0o640)
    Path("team").mkdir()
    os.chown("team", -1, group)
    Path("team").chmod(0o2775)
    desk.run(job("lake", tmp_path / "team"))
    for name in ("team/a.csv", "team/new/b.csv"):
        assert (Path(name).stat().st_gid, mode(name)) == (group, 0o640 if group == os.getegid() else 0o600)
    assert mode("team/new") & stat.S_ISGID


def test_an_access_list_is_no_right_of_the_group(desk: Desk, tmp_path: Path) -> None:
    """The group bits of the mode are only the maximum that any entry of the access list grants."""
    write(Path("in.csv"), ROWS)
    Path("in.csv").chmod(0o600)
    share(Path("in.csv"))
    assert mode("in.csv") == 0o640
    desk.run(job("in.csv", tmp_path / "out.csv"))
    assert (mode("out.csv"), entries(tmp_path / "out.csv")) == (0o600, {})


def test_what_is_replaced_leaves_its_access_list(desk: Desk, tmp_path: Path) -> None:
    made(desk, "in.csv")
    write(Path("out.csv"), ROWS)
    Path("out.csv").chmod(0o600)
    share(Path("out.csv"))
    before = entries(tmp_path / "out.csv")
    desk.run(job("in.csv", tmp_path / "out.csv", "detokenize", force=True))
    assert (mode("out.csv"), entries(tmp_path / "out.csv")) == (0o640, before)
    assert before[GROUP_OBJ] == 0
    Path("in.csv").chmod(0o600)
    desk.run(job("in.csv", tmp_path / "out.csv", "detokenize", force=True))
    assert (mode("out.csv"), entries(tmp_path / "out.csv")[MASK]) == (0o600, 0)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_s_list_for_new_files_lets_nobody_in(replaced: bool, desk: Desk, tmp_path: Path) -> None:
    write(Path("in.csv"), ROWS)
    Path("team").mkdir()
    if replaced:
        write(Path("team/out.csv"), ROWS)
    share(Path("team"), default=True)
    desk.run(job("in.csv", tmp_path / "team" / "out.csv", force=replaced))
    assert (mode("team/out.csv"), entries(tmp_path / "team" / "out.csv")) == (0o644, {})


@pytest.mark.parametrize("operation", ["tokenize", "detokenize", "retokenize"])
def test_a_duckdb_file_that_more_people_can_read_takes_no_table(operation: str, desk: Desk, tmp_path: Path) -> None:
    source, output = made(desk, "in.duckdb", 0o600), tmp_path / "out.duckdb"
    with duckdb.connect(str(output)) as con:
        con.execute("create table other as select 1 as id")
    output.chmod(0o644)
    asked = job(source, output, operation, **({"if_token": "keep"} if operation == "tokenize" else {}))
    desk.refused(InputsError, r"others can get at that file \(mode 0644\), and not at .*chmod 0600 it first", asked)
    assert mode(output) == 0o644
    output.chmod(0o600)
    desk.run(asked)
    assert (mode(output), len(names(output))) == (0o600, 10)


def test_a_duckdb_file_that_somebody_has_planted_takes_no_table(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = made(desk, "in.duckdb")
    Path("public").mkdir()
    Path("public").chmod(0o1777)
    with duckdb.connect("public/out.duckdb") as con:
        con.execute("create table other as select 1 as id")
    if IS_ROOT:
        os.chown("public/out.duckdb", THEM, THEM)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: THEM + 1)
    asked = job(source, tmp_path / "public" / "out.duckdb", "detokenize")
    desk.refused(InputsError, "in a folder where everybody can put files", asked)


def test_a_second_name_of_the_input_is_the_input(desk: Desk, tmp_path: Path) -> None:
    made(desk, "in.duckdb")
    Path("out.duckdb").hardlink_to("in.duckdb")
    desk.refused(InputsError, "the output is the input", job("in.duckdb", tmp_path / "out.duckdb", "detokenize", force=True))


def test_a_file_with_two_names_is_replaced_under_the_one_that_was_named(desk: Desk, tmp_path: Path) -> None:
    source = made(desk, "in.csv")
    Path("old.csv").write_text("precious")
    Path("out.csv").hardlink_to("old.csv")
    desk.run(job(source, tmp_path / "out.csv", "detokenize", force=True))
    assert Path("old.csv").read_text() == "precious"
    assert names(tmp_path / "out.csv") == [name for name, _ in ROWS]
    assert tmp_path.joinpath("out.csv").stat().st_nlink == 1


@pytest.mark.parametrize("where", ["folder", "above"])
def test_a_link_in_the_middle_of_a_path_that_is_put_there_meanwhile(
    where: str, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = made(desk, "in.csv")
    Path("theirs/folder").mkdir(parents=True)
    Path("elsewhere/folder").mkdir(parents=True)
    publish = Outputs.publish

    def swapped(outputs: Outputs, folder: Path, *given: Any, **options: Any) -> None:
        moved = Path("theirs/folder" if where == "folder" else "theirs")
        moved.rename("away")
        moved.symlink_to(tmp_path / "elsewhere" / ("folder" if where == "folder" else ""))
        publish(outputs, folder, *given, **options)

    monkeypatch.setattr(Outputs, "publish", swapped)
    asked = job(source, tmp_path / "theirs" / "folder" / "out.csv", "detokenize", force=True)
    with pytest.raises((ConfigError, OSError)):
        desk.run(asked)
    assert list(Path("elsewhere").rglob("*.csv")) == []


@pytest.mark.parametrize("form", ["csv", "parquet", "duckdb"])
def test_links_in_a_folder_that_takes_the_place_of_the_run_s_are_not_followed(
    form: str, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For instance root works in the folder of a user, who may rename what root has made there."""
    source = made(desk, f"in.{form}")
    asked: Job = job(source, tmp_path / f"out.{form}", "detokenize")
    Path("precious").write_text("precious")
    Path("precious").chmod(0o600)
    planted = work_path(asked)
    staged = Outputs.staged

    def swapped(outputs: Outputs, folder: Path, number: int) -> Path:
        if not Path("away").exists():
            planted.rename("away")
            (planted / "staged").mkdir(parents=True)
            (planted / "staged" / f"000000.{form}").symlink_to(tmp_path / "precious")
        return staged(outputs, folder, number)

    monkeypatch.setattr(Outputs, "staged", swapped)
    desk.refused(RunRefused, "was moved away", asked)
    assert (Path("precious").read_text(), mode("precious")) == ("precious", 0o600)
    assert not (tmp_path / f"out.{form}").exists()


def test_root_keeps_what_it_makes_in_somebody_s_folder_to_itself(desk: Desk, tmp_path: Path) -> None:
    """Values belong to the user who made them: the folder's owner may not be meant to have them."""
    source = made(desk, "in.csv")
    Path("home").mkdir()
    if IS_ROOT:
        os.chown("home", THEM, THEM)
    desk.run(job(source, tmp_path / "home" / "out.csv", "detokenize", rejects=tmp_path / "home" / "bad.csv"))
    for name in ("home/out.csv", "home/bad.csv"):
        assert (mode(name), Path(name).stat().st_uid) == (0o600, os.geteuid())
