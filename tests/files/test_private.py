"""Files that runs leave and files that they work in: nobody else can read values, and no link can redirect a run.

Each is tested under every umask, because a file of values has to be private whatever the user's umask is.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from quorumvault.cli import main
from quorumvault.files.job import Done, Job
from quorumvault.files.outputs import Outputs
from quorumvault.files.run import run
from quorumvault.files.sources import InputsError
from quorumvault.files.uploads import Uploads
from quorumvault.files.work_folder import RunRefused, work_path
from tests.rigs.tables import FORMATS, Desk, job, names, write
from tests.rigs.vault import key_text

pytestmark = pytest.mark.slow

ROWS = [(f"name {number}", "here") for number in range(10)]
IS_ROOT = os.geteuid() == 0
THEM = 12345 if IS_ROOT else os.geteuid()


@pytest.fixture
def precious(tmp_path: Path) -> Iterator[Path]:
    """A folder with a file, to which links point. The file has to stay unchanged."""
    write(tmp_path / "in.csv", ROWS)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("precious")
    yield tmp_path / "precious"
    assert (tmp_path / "precious" / "file").read_text() == "precious"


@pytest.fixture(params=[0o000, 0o022], ids=oct)
def any_umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    assert os.umask(before) == request.param


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def tokens(desk: Desk, path: Path, file_mode: int = 0o644) -> Path:
    """Makes a file of tokens with this mode."""
    values = path.with_name(f"made-of-{path.name}")
    write(values, ROWS)
    desk.run(job(values, path))
    values.unlink()
    path.chmod(file_mode)
    return path


def command(desk: Desk, *arguments: str, stdin: bytes = b"") -> Result:
    environment = {"QUORUMVAULT_URL": desk.url, "QUORUMVAULT_API_KEY": key_text("admin")}
    return CliRunner().invoke(main, [*arguments, "--column", "name"], input=stdin, env=environment)


@pytest.mark.parametrize("form", FORMATS)
def test_values_are_for_nobody_else(form: str, desk: Desk, tmp_path: Path, any_umask: int) -> None:
    source, output = tokens(desk, tmp_path / f"in.{form}"), tmp_path / "new" / f"in.{form}"
    desk.run(job(source, output.parent, "detokenize", rejects=tmp_path / "bad.csv"))
    assert names(output) == [name for name, _ in ROWS]
    # The output's folder is open to no more people than the input's folder, which pytest makes for its user alone.
    assert [mode(path) for path in (output, tmp_path / "bad.csv", output.parent)] == [0o600, 0o600, 0o700]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("given", [0o600, 0o640, 0o644, 0o666])
def test_tokens_are_for_whom_the_input_and_the_umask_leave_them_to(
    form: str, given: int, desk: Desk, tmp_path: Path, any_umask: int
) -> None:
    source, output = tmp_path / f"in.{form}", tmp_path / f"out.{form}"
    write(source, ROWS)
    source.chmod(given)
    desk.run(job(source, output))
    assert mode(output) == given & ~any_umask
    moved = tmp_path / f"moved.{form}"
    desk.run(job(output, moved, "retokenize", crosswalk=tmp_path / "x.parquet"))
    assert (mode(moved), mode(tmp_path / "x.parquet")) == (given & ~any_umask, 0o600)


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("before", "given", "after"),
    [(0o600, 0o644, 0o600), (0o640, 0o644, 0o640), (0o644, 0o644, 0o644), (0o644, 0o600, 0o600), (0o666, 0o640, 0o640)],
)
def test_what_is_replaced_leaves_its_owner_and_mode_within_the_input_s(
    form: str, before: int, given: int, after: int, desk: Desk, tmp_path: Path, any_umask: int
) -> None:
    source, output = tokens(desk, tmp_path / f"in.{form}", given), tmp_path / f"out.{form}"
    output.touch()
    output.chmod(before)
    if IS_ROOT:
        os.chown(output, THEM, os.getegid())
    desk.run(job(source, output, "detokenize", force=True))
    assert (mode(output), output.stat().st_uid) == (after, THEM)
    assert names(output) == [name for name, _ in ROWS]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_in_place_everything_stays(form: str, desk: Desk, tmp_path: Path, any_umask: int) -> None:
    source = tokens(desk, tmp_path / f"in.{form}", 0o640)
    if IS_ROOT:
        os.chown(source, THEM, THEM)
    before = source.stat()
    desk.run(job(source, None, "retokenize"))
    after = source.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


@pytest.mark.parametrize("form", FORMATS)
def test_what_a_run_works_with_is_for_nobody_else(form: str, desk: Desk, tmp_path: Path, any_umask: int) -> None:
    source, spill = tmp_path / f"in.{form}", tmp_path / "spill"
    write(source, ROWS)
    spill.mkdir()
    asked = job(source, tmp_path / f"out.{form}", spill=spill, rejects=tmp_path / "bad.csv")
    seen: dict[str, int] = {}

    def look(done: Done) -> None:
        for folder in (work_path(asked), *spill.iterdir()):
            seen.update({path.name: path.lstat().st_mode for path in (folder, *folder.rglob("*"))})

    run(asked, desk.client, look)
    assert {"manifest.json", "000000.data", work_path(asked).name} <= seen.keys()
    assert {oct(found) for found in seen.values() if stat.S_IMODE(found) & 0o077} == set()
    assert not list(spill.iterdir())


def test_standard_input_and_output(desk: Desk, tmp_path: Path, any_umask: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(desk, "tokenize", "-", "--format", "csv", "-o", "t.csv", stdin=b"name\nAda\n").exit_code == 0
    Path("old.csv").touch(0o640)
    Path("old.csv").chmod(0o640)
    piped = command(desk, "detokenize", "-", "--format", "csv", "-o", "old.csv", "--force", stdin=Path("t.csv").read_bytes())
    assert piped.exit_code == 0
    assert (mode(Path("t.csv")), mode(Path("old.csv"))) == (0o600, 0o640)
    assert Path("old.csv").read_bytes() == b"name\nAda\n"


@pytest.mark.parametrize("force", [False, True])
def test_a_link_in_the_place_of_the_work_folder_is_left_alone(force: bool, desk: Desk, tmp_path: Path, precious: Path) -> None:
    """Earlier, a run removed what the link pointed to."""
    asked = job(tmp_path / "in.csv", tmp_path / "out.csv", force=force)
    work_path(asked).symlink_to("precious")
    desk.refused(RunRefused, "is no folder of yours, and nothing is done with it", asked)
    assert work_path(asked).is_symlink()
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("what", ["open", "theirs", "file"])
def test_a_work_folder_that_is_not_one_s_own(what: str, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "in.csv", ROWS)
    asked = job(tmp_path / "in.csv", tmp_path / "out.csv", force=True)
    place = work_path(asked)
    if what == "file":
        place.write_text("precious")
    else:
        place.mkdir(mode=0o700)
        (place / "file").write_text("precious")
    if what == "open":
        place.chmod(0o750)
    elif what == "theirs" and IS_ROOT:
        os.chown(place, THEM, THEM)
    elif what == "theirs":
        monkeypatch.setattr("quorumvault.files.work_folder.os.geteuid", lambda: THEM + 1)
    words = {"open": r"is open to others \(mode 0750\)", "theirs": "belongs to", "file": "is no folder of yours"}
    desk.refused(RunRefused, words[what], asked)
    assert [path.read_text() for path in (place, place / "file") if path.is_file()] == ["precious"]


def test_links_in_a_work_folder_are_removed_and_not_what_they_lead_to(desk: Desk, tmp_path: Path, precious: Path) -> None:
    asked = job(tmp_path / "in.csv", tmp_path / "out.csv", force=True)
    work_path(asked).mkdir(mode=0o700)
    for name in ("staged", "folder", "quorumvault-spill-x"):
        (work_path(asked) / name).symlink_to(precious)
    (work_path(asked) / "000000.data").symlink_to(precious / "file")
    desk.run(asked)
    assert not work_path(asked).exists()


def test_a_work_folder_that_is_swapped_meanwhile(desk: Desk, tmp_path: Path) -> None:
    """Other users may be able to rename the work folder, in a folder that lets them."""
    write(tmp_path / "in.csv", ROWS)
    asked = job(tmp_path / "in.csv", tmp_path / "out.csv")
    planted = work_path(asked)

    def swap(done: Done) -> None:
        if not (tmp_path / "away").exists():
            planted.rename(tmp_path / "away")
            planted.mkdir()
            (planted / "000000.data").write_text("precious")

    with pytest.raises((RunRefused, OSError)):
        run(asked, desk.client, swap)
    assert (planted / "000000.data").read_text() == "precious"
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_spill_folder_that_has_become_somebody_else_s_stays(
    replaced: bool, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed run has noted its spill folder. The folder was then tidied away, and somebody else took its name."""
    write(tmp_path / "in.csv", ROWS)
    asked = job(tmp_path / "in.csv", tmp_path / "out.csv", force=True)
    left = tmp_path / "quorumvault-spill-abc"
    left.mkdir(mode=0o755 if replaced else 0o700)
    (left / "file").write_text("values")
    work_path(asked).mkdir(mode=0o700)
    (work_path(asked) / "spill-folder").write_text(str(left))
    desk.run(asked)
    assert left.exists() is replaced


@pytest.mark.parametrize("what", ["output", "rejects", "crosswalk"])
def test_an_output_is_not_led_elsewhere_by_somebody_else_s_link(
    what: str, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tokens(desk, tmp_path / "in.csv")
    (tmp_path / "link.csv").symlink_to(tmp_path / "elsewhere.csv")
    places: dict[str, Any] = {"output": tmp_path / "out.csv", what: tmp_path / "link.csv"}
    asked = job(source, places.pop("output"), "retokenize", force=True, **places)
    if IS_ROOT:
        os.chown(tmp_path / "link.csv", THEM, THEM, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: THEM + 1)
    desk.refused(InputsError, r"is a link that .* made", asked)
    assert not (tmp_path / "elsewhere.csv").exists()


def test_one_s_own_link_is_followed_and_stays(desk: Desk, tmp_path: Path) -> None:
    write(tmp_path / "in.csv", ROWS)
    (tmp_path / "big").mkdir()
    (tmp_path / "out.csv").symlink_to("big/out.csv")
    desk.run(job(tmp_path / "in.csv", tmp_path / "out.csv"))
    assert (tmp_path / "out.csv").is_symlink()
    assert not (tmp_path / "big" / "out.csv").is_symlink()


def test_a_link_that_is_put_there_meanwhile_is_not_followed(
    desk: Desk, tmp_path: Path, precious: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Job = job(tmp_path / "in.csv", tmp_path / "out.csv", force=True)
    publish = Outputs.publish

    def planted(outputs: Outputs, folder: Path, uploads: Uploads, **options: Any) -> None:
        (tmp_path / "out.csv").symlink_to(precious / "file")
        publish(outputs, folder, uploads, **options)

    monkeypatch.setattr(Outputs, "publish", planted)
    desk.run(asked)
    assert not (tmp_path / "out.csv").is_symlink()


def test_an_api_key_that_others_can_read_is_told(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("in.csv"), ROWS)
    key = tmp_path / "api.key"
    key.write_text(key_text("admin"))
    for file_mode, told in ((0o600, False), (0o644, True), (0o640, True)):
        key.chmod(file_mode)
        done = command(desk, "tokenize", "in.csv", "-o", "t.csv", "--force", "--key-file", str(key))
        assert done.exit_code == 0, done.stderr
        assert (f"others can read the API key in {key} (mode {file_mode:04o}): chmod 600 it" in done.stderr) is told
        assert key_text("admin") not in done.output
