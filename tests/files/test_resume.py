"""A run that is cut off: after any part, while names are given, by a rotation; and what it refuses to go on with."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import quorumvault as qv
from quorumvault.crypto.tokens import parse_token
from quorumvault.files import run as runs
from quorumvault.files import work_folder
from quorumvault.files.job import RunError
from quorumvault.files.manifest import Manifest
from quorumvault.files.outputs import OutputExists, Outputs, Target
from quorumvault.files.run import SourceChanged, run
from quorumvault.files.sources import InputsError
from quorumvault.files.work_folder import ManifestMismatch, RunRefused, UnfinishedRun, work_path
from tests.rigs import tables
from tests.rigs.tables import FORMATS, Desk, job, names, read, write
from tests.rigs.vault import key_text

pytestmark = pytest.mark.slow

ROWS: list[tables.Row] = [(None if number % 5 == 3 else f"name {number % 7}", f"row {number}") for number in range(19)]


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with tables.desk() as made:
        yield made


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    tables.small_parts(monkeypatch)


class Cut(BaseException):
    """In the place of a kill: nothing is there to catch it."""


def after_part(monkeypatch: pytest.MonkeyPatch, then: Callable[[int], None]) -> None:
    """Calls ``then`` with how many parts are finished, each time that there is one more."""
    original = Manifest.add

    def add(manifest: Manifest, part: Any) -> None:
        original(manifest, part)
        then(len(manifest.parts))

    monkeypatch.setattr(Manifest, "add", add)


def epochs(path: Path) -> set[int]:
    parsed = [parse_token(name) for name in names(path) if name is not None]
    return {each[0] for each in parsed if each is not None}


table_rows = st.lists(
    st.tuples(st.one_of(st.none(), st.sampled_from(["", "a", 'b"', "ö", "c,\nd", "e"])), st.sampled_from(["x", "y"])), max_size=14
)


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=table_rows)
def test_a_kill_after_any_part_costs_no_finished_part(form: str, rows: list[tables.Row], desk: Desk, tmp_path: Path) -> None:
    """What is on disk at that instant is put back, with all that the process had there, and the run is resumed."""
    place = Path(tempfile.mkdtemp(dir=tmp_path))
    source, output, kept = place / f"in.{form}", place / f"out.{form}", place / "kept"
    if form == "csv":
        rows = [(name or None, place) for name, place in rows]  # one cell is how the csv module reads both
    write(source, rows)
    asked = job(source, output)
    work = work_path(asked)
    with pytest.MonkeyPatch.context() as patch:
        after_part(patch, lambda count: [shutil.copytree(work, kept / str(count))].clear())
        whole = run(asked, desk.client)
    expected = output.read_bytes() if form != "duckdb" else read(output)
    assert (whole.parts_kept, whole.rows) == (0, len(rows))
    for count in range(1, whole.parts_done + 1):
        output.unlink()
        (kept / str(count)).rename(work)
        resumed = run(dataclasses.replace(asked, resume=True), desk.client)
        assert (resumed.parts_kept, resumed.parts_done) == (count, whole.parts_done - count)
        assert (resumed.values, resumed.rows, resumed.epochs) == (whole.values, whole.rows, whole.epochs)
        assert (output.read_bytes() if form != "duckdb" else read(output)) == expected
        assert not work.exists()
    run(job(output, place / f"back.{form}", "detokenize"), desk.client)
    assert read(place / f"back.{form}") == read(source) == rows


@pytest.mark.parametrize("in_place", [False, True])
def test_a_kill_while_names_are_given_ends_with_all_names(in_place: bool, desk: Desk, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "c.csv"):
        (tmp_path / "in").mkdir(exist_ok=True)
        write(tmp_path / "in" / name, ROWS)
    run(job(tmp_path / "in", tmp_path / "tok"), desk.client)
    desk.rotate()
    output = None if in_place else tmp_path / "out"
    asked = job(tmp_path / "tok", output, "retokenize", crosswalk=tmp_path / "x.parquet")
    for count in range(1, 4):
        (tmp_path / "x.parquet").unlink(missing_ok=True)
        if not (tmp_path / "before").exists():
            shutil.copytree(tmp_path / "tok", tmp_path / "before")
        shutil.rmtree(tmp_path / "tok")
        shutil.copytree(tmp_path / "before", tmp_path / "tok")
        with pytest.MonkeyPatch.context() as patch:
            cut_after_names(patch, count)
            with pytest.raises(Cut):
                run(dataclasses.replace(asked, force=True), desk.client)
        assert (tmp_path / "x.parquet").exists()  # the one thing that knows what is being replaced
        if in_place:
            with pytest.raises(UnfinishedRun, match="only --resume"):
                run(dataclasses.replace(asked, force=True), desk.client)
        resumed = run(dataclasses.replace(asked, resume=True), desk.client)
        assert (resumed.parts_done, resumed.look_ups, resumed.rows) == (0, 0, 3 * len(ROWS))
        done = tmp_path / ("tok" if in_place else "out")
        active = {desk.client.epoch()}
        assert {path.name: epochs(path) for path in done.iterdir()} == {"a.csv": active, "b.csv": active, "c.csv": active}
        assert (tmp_path / "x.parquet").exists()
        assert not work_path(asked).exists()


def cut_after_names(patch: pytest.MonkeyPatch, count: int) -> None:
    original, given_names = Outputs._give, list[Any]()

    def give(outputs: Outputs, staged: Path, target: Target, replacing: bool) -> set[Path]:
        if len(given_names) == count:
            raise Cut
        given_names.append(target)
        return original(outputs, staged, target, replacing)

    patch.setattr(Outputs, "_give", give)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("operation", "parts"), [("tokenize", 3), ("retokenize", 10)])
def test_a_rotation_after_any_part_leaves_one_epoch(
    form: str, operation: str, parts: int, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("in", "other"):
        (tmp_path / name).mkdir()
        write(tmp_path / "in" / f"{name}.{form}", ROWS)
    if operation == "retokenize":
        run(job(tmp_path / "in", tmp_path / "tok", of_tables=form == "duckdb"), desk.client)
    source = tmp_path / ("tok" if operation == "retokenize" else "in")
    made: list[int] = []

    def rotate(count: int) -> None:
        made.append(count)
        if len(made) == parts:
            desk.rotate()

    after_part(monkeypatch, rotate)
    asked = job(source, tmp_path / "out", operation, of_tables=form == "duckdb")
    report = run(asked, desk.client)
    # Names come again in later parts, whose answers are remembered: those parts are of the older epoch too.
    assert (report.epochs, report.parts_done) == ([desk.client.epoch()], 20)
    for path in (tmp_path / "out").iterdir():
        assert epochs(path) == {desk.client.epoch()}
    run(job(tmp_path / "out", tmp_path / "back", "detokenize", of_tables=form == "duckdb"), desk.client)
    for path in (tmp_path / "back").iterdir():
        assert read(path) == ROWS


@pytest.mark.parametrize("form", FORMATS)
def test_a_rotation_between_kill_and_resume_leaves_one_epoch(
    form: str, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = unfinished(desk, tmp_path, monkeypatch, form)
    desk.rotate()
    report = run(dataclasses.replace(asked, resume=True), desk.client)
    assert report.parts_kept == 0
    assert epochs(tmp_path / f"out.{form}") == {desk.client.epoch()}


def test_epochs_that_never_stand_still_are_an_error_that_can_be_gone_on_from(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in.csv", ROWS)
    asked = job(tmp_path / "in.csv", tmp_path / "out.csv")
    with pytest.MonkeyPatch.context() as patch:
        after_part(patch, lambda count: desk.rotate())
        with pytest.raises(qv.EpochMoved, match="--resume"):
            run(asked, desk.client)
    assert not (tmp_path / "out.csv").exists()
    run(dataclasses.replace(asked, resume=True), desk.client)
    assert epochs(tmp_path / "out.csv") == {desk.client.epoch()}


def unfinished(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str = "csv", **options: Any) -> Any:
    """A job of which two parts are finished."""
    write(tmp_path / f"in.{form}", ROWS)
    asked = job(tmp_path / f"in.{form}", tmp_path / f"out.{form}", **options)

    def cut(count: int) -> None:
        if count == 2:
            raise Cut

    with pytest.MonkeyPatch.context() as patch:
        after_part(patch, cut)
        with pytest.raises(Cut):
            run(asked, desk.client)
    assert not (tmp_path / f"out.{form}").exists()
    return asked


def test_an_unfinished_run_is_gone_on_with_or_thrown_away_but_not_passed_over(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = unfinished(desk, tmp_path, monkeypatch)
    with pytest.raises(UnfinishedRun, match="2 finished parts: --resume goes on, --force begins again"):
        run(asked, desk.client)
    begun = run(dataclasses.replace(asked, force=True), desk.client)
    assert (begun.parts_kept, begun.parts_done) == (0, 5)
    with pytest.raises(OutputExists):
        run(dataclasses.replace(asked, resume=True), desk.client)
    (tmp_path / "out.csv").unlink()
    begun = run(dataclasses.replace(asked, resume=True), desk.client)
    assert (begun.parts_kept, begun.parts_done) == (0, 5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"columns": ("place",)}, "the columns .--column. was name and is place"),
        ({"operation": "detokenize"}, "the operation was tokenize and is detokenize"),
        ({"if_token": "keep"}, "--if-token was fail and is keep"),
        ({"cast": ("place",)}, "--cast was none and is place"),
        ({"missing": "null"}, "--missing was keep and is null"),
        ({"status": True}, "--status was false and is true"),
        ({"rejects": Path("r.csv")}, "--rejects was none and is .*r.csv"),
    ],
)
def test_a_run_that_is_about_something_else_is_not_gone_on_with(
    change: dict[str, Any], words: str, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = unfinished(desk, tmp_path, monkeypatch)
    with pytest.raises(ManifestMismatch, match=words):
        run(dataclasses.replace(asked, resume=True, **change), desk.client)
    assert run(dataclasses.replace(asked, resume=True), desk.client).parts_kept == 2


def test_another_key_or_a_changed_source_is_not_gone_on_with(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = dataclasses.replace(unfinished(desk, tmp_path, monkeypatch), resume=True)
    with (
        qv.Client(desk.url, api_key=key_text("lab")) as lab,
        pytest.raises(ManifestMismatch, match="the API key was admin and is lab"),
    ):
        run(asked, lab)
    write(tmp_path / "in.csv", ROWS[1:])
    with pytest.raises(ManifestMismatch, match=r"in\.csv has changed since"):
        run(asked, desk.client)
    (tmp_path / "more.csv").write_text("name\n")
    with pytest.raises(ManifestMismatch, match="the input files, or the outputs, are not the same"):
        run(dataclasses.replace(asked, sources=(*asked.sources, *job(tmp_path / "more.csv", None).sources)), desk.client)


@pytest.mark.parametrize("form", FORMATS)
def test_a_source_that_changes_meanwhile_is_an_error_and_nothing_appears(
    form: str, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = tmp_path / f"in.{form}", tmp_path / f"out.{form}"
    write(source, ROWS)
    original = runs._Making.require_unchanged

    def changed(making: Any) -> None:
        write(source, ROWS[:-1])
        original(making)

    monkeypatch.setattr(runs._Making, "require_unchanged", changed)
    with pytest.raises(SourceChanged, match=f"in.{form}.* was changed while it was read"):
        run(job(source, output), desk.client)
    assert not output.exists()


@pytest.mark.parametrize("form", FORMATS)
def test_a_part_that_is_damaged_is_made_again(form: str, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = unfinished(desk, tmp_path, monkeypatch, form)
    piece = work_path(asked) / "000000.data"
    content = bytearray(piece.read_bytes())
    content[len(content) // 2] ^= 1
    piece.write_bytes(content)
    resumed = run(dataclasses.replace(asked, resume=True), desk.client)
    assert (resumed.parts_kept, resumed.parts_done) == (1, 4)
    run(job(tmp_path / f"out.{form}", tmp_path / f"back.{form}", "detokenize"), desk.client)
    assert read(tmp_path / f"back.{form}") == ROWS


def test_a_line_that_was_cut_off_is_no_part(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = unfinished(desk, tmp_path, monkeypatch)
    parts = work_path(asked) / "parts.jsonl"
    parts.write_bytes(parts.read_bytes()[:-20])
    assert run(dataclasses.replace(asked, resume=True), desk.client).parts_kept == 1


def test_what_is_no_manifest_is_refused(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = unfinished(desk, tmp_path, monkeypatch)
    manifest = work_path(asked) / "manifest.json"
    whole = manifest.read_text()
    for text, words in (("{}", "no manifest of this version"), (whole.replace('"format": 1', '"format": 2'), "has format 2")):
        manifest.write_text(text)
        with pytest.raises(qv.QuorumVaultError, match=words):
            run(dataclasses.replace(asked, resume=True), desk.client)


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_spill_folder_is_private_and_gone_whatever_happens(
    form: str, elsewhere: bool, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spill = tmp_path / "spill"
    spill.mkdir()
    seen: list[Path] = []
    write(tmp_path / f"in.{form}", ROWS)
    asked = job(tmp_path / f"in.{form}", tmp_path / f"out.{form}", spill=spill if elsewhere else None)
    work = work_path(asked)

    def look(count: int) -> None:
        (folder,) = (spill if elsewhere else work).glob("quorumvault-spill-*")
        seen.append(folder)
        assert [stat.S_IMODE(path.stat().st_mode) for path in (work, folder)] == [0o700, 0o700]
        assert any(folder.iterdir())
        if count == 2:
            shutil.copytree(folder, tmp_path / "left")
            raise Cut

    with pytest.MonkeyPatch.context() as patch:
        after_part(patch, look)
        with pytest.raises(Cut):
            run(asked, desk.client)
    assert not seen[0].exists()
    (tmp_path / "left").rename(seen[0])  # as a kill would have left it
    if elsewhere:
        assert (work / work_folder._SPILL_NOTE).read_text() == str(seen[0])
    run(dataclasses.replace(asked, resume=True), desk.client)
    assert list(spill.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {f"in.{form}", f"out.{form}", "spill"}


def test_one_process_at_a_time(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = dataclasses.replace(unfinished(desk, tmp_path, monkeypatch), resume=True)
    refused: list[str] = []

    def again(count: int) -> None:
        if not refused:
            with pytest.raises(RunRefused, match="another process is at this run") as caught:
                run(asked, desk.client)
            refused.append(str(caught.value))

    after_part(monkeypatch, again)
    run(asked, desk.client)
    assert refused


def test_a_folder_that_is_removed_while_it_is_waited_for_is_made_anew(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in.csv", ROWS)
    asked = job(tmp_path / "in.csv", tmp_path / "out.csv")
    work, real, locked = work_path(asked), fcntl.flock, list[Any]()

    def flock(descriptor: int, how: int) -> None:
        if not locked:
            shutil.rmtree(work)  # by the process that had it
        locked.append(descriptor)
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert run(asked, desk.client).rows == len(ROWS)
    assert len(locked) == 2
    assert read(tmp_path / "out.csv") != []


@pytest.mark.parametrize("listed", ["rejects", "crosswalk"])
def test_a_list_on_another_file_system_is_refused_before_anything_is_done(
    listed: str, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in.csv", ROWS)
    run(job(tmp_path / "in.csv", tmp_path / "tok.csv"), desk.client)
    desk.rotate()
    before = (tmp_path / "tok.csv").read_bytes()
    (tmp_path / "mount").mkdir()
    apart(monkeypatch, tmp_path / "mount")
    lists: Any = {listed: tmp_path / "mount" / "new" / "list.csv"}
    desk.asked()
    with pytest.raises(InputsError, match=r"list\.csv is on another file system"):
        run(job(tmp_path / "tok.csv", None, "retokenize", **lists), desk.client)
    assert (tmp_path / "tok.csv").read_bytes() == before
    assert desk.asked() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "mount", "tok.csv"]
    assert list((tmp_path / "mount").iterdir()) == []


def test_a_file_in_place_that_is_a_link_to_another_file_system_is_refused(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("in", "mount"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / f"{name}.csv", ROWS)
    (tmp_path / "in" / "z.csv").symlink_to(tmp_path / "mount" / "mount.csv")
    apart(monkeypatch, tmp_path / "mount")
    with pytest.raises(InputsError, match=r"z\.csv is on another file system"):
        run(job(tmp_path / "in", None), desk.client)
    assert read(tmp_path / "in" / "in.csv") == read(tmp_path / "mount" / "mount.csv") == ROWS


def apart(monkeypatch: pytest.MonkeyPatch, mount: Path) -> None:
    """What is in this folder is on another file system than all else."""

    def checked(call: Callable[..., None]) -> Callable[..., None]:
        def give(source: Path | str, target: Path | str, **options: Any) -> None:
            if Path(source).is_relative_to(mount) != Path(target).is_relative_to(mount):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source), None, str(target))
            call(source, target, **options)

        return give

    for name in ("link", "replace", "rename"):
        monkeypatch.setattr(os, name, checked(getattr(os, name)))


@pytest.mark.parametrize(
    ("output", "lists"),
    [
        ("out.csv", {"rejects": "out.csv"}),
        ("out.csv", {"crosswalk": "folder/../out.csv"}),
        ("out.csv", {"rejects": "r.csv", "crosswalk": "r.csv"}),
        (None, {"rejects": "in.csv"}),
        (None, {"crosswalk": "link.csv"}),
    ],
)
def test_outputs_that_would_be_one_file_are_refused(
    output: str | None, lists: dict[str, str], desk: Desk, tmp_path: Path
) -> None:
    write(tmp_path / "in.csv", ROWS)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.csv").symlink_to("in.csv")
    options: Any = {name: tmp_path / path for name, path in lists.items()}
    asked = job(tmp_path / "in.csv", None if output is None else tmp_path / output, force=True, **options)
    with pytest.raises(InputsError, match="name another"):
        run(asked, desk.client)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "in.csv", "link.csv"]
    assert read(tmp_path / "in.csv") == ROWS


def test_a_table_is_its_own_source_whatever_its_case(desk: Desk, tmp_path: Path) -> None:
    write(tmp_path / "in.duckdb", ROWS)
    for table in ("T", "main.t"):
        asked = dataclasses.replace(job(tmp_path / "in.duckdb", tmp_path / "in.duckdb", force=True), table=table)
        with pytest.raises(InputsError, match="the output is the input"):
            run(asked, desk.client)
    with pytest.raises(InputsError, match="name another"):
        run(job(tmp_path / "in.duckdb", tmp_path / "out.duckdb", rejects=tmp_path / "out.duckdb"), desk.client)


def commit_to_the_log(path: Path) -> None:
    """A change that stays in the log beside the file."""
    before = path.read_bytes()
    with duckdb.connect(str(path)) as con:
        con.execute("pragma disable_checkpoint_on_shutdown")
        con.execute("update t set place = 'changed'")
    assert path.read_bytes() == before


def test_a_change_that_is_in_the_log_of_a_duckdb_file_is_a_change(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = unfinished(desk, tmp_path, monkeypatch, "duckdb")
    commit_to_the_log(tmp_path / "in.duckdb")
    with pytest.raises(ManifestMismatch, match=r"in\.duckdb has changed since"):
        run(dataclasses.replace(asked, resume=True), desk.client)
    write(tmp_path / "in.duckdb", ROWS)
    after_part(monkeypatch, lambda count: commit_to_the_log(tmp_path / "in.duckdb") if count == 2 else None)
    with pytest.raises(SourceChanged, match=r"in\.duckdb::t was changed while it was read"):
        run(dataclasses.replace(asked, force=True), desk.client)
    assert not (tmp_path / "out.duckdb").exists()


def cut_while_naming(desk: Desk, asked: Any, names_given: int = 0) -> None:
    with pytest.MonkeyPatch.context() as patch:
        cut_after_names(patch, names_given)
        with pytest.raises(Cut):
            run(asked, desk.client)


@pytest.mark.parametrize(
    "change", [{"operation": "detokenize"}, {"columns": ("place",)}, {"rejects": Path("r.csv")}, {"sources": ()}]
)
def test_a_run_that_gives_names_is_not_ended_by_another_command(change: dict[str, Any], desk: Desk, tmp_path: Path) -> None:
    write(tmp_path / "in.csv", ROWS)
    write(tmp_path / "other.csv", ROWS[:1])
    asked = job(tmp_path / "in.csv", tmp_path / "out.csv")
    cut_while_naming(desk, asked)
    if "sources" in change:
        change = {"sources": job(tmp_path / "other.csv", None).sources}
    with pytest.raises(ManifestMismatch):
        run(dataclasses.replace(asked, resume=True, **change), desk.client)
    assert not (tmp_path / "out.csv").exists()
    write(tmp_path / "in.csv", ROWS[:1])  # what was read of it is whole
    assert run(dataclasses.replace(asked, resume=True), desk.client).rows == len(ROWS)
    assert len(read(tmp_path / "out.csv")) == len(ROWS)


def test_a_run_that_is_thrown_away_is_not_mistaken_for_one_that_is_done(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in.csv", ROWS)
    asked = job(tmp_path / "in.csv", tmp_path / "out.csv")
    cut_while_naming(desk, asked)
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name == "manifest.json":
            raise Cut
        real(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(Cut):
            run(dataclasses.replace(asked, force=True), desk.client)
    assert run(dataclasses.replace(asked, resume=True), desk.client).rows == len(ROWS)
    assert len(read(tmp_path / "out.csv")) == len(ROWS)


def test_what_was_made_and_is_lost_is_an_error(desk: Desk, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / "in").mkdir(exist_ok=True)
        write(tmp_path / "in" / name, ROWS)
    asked = job(tmp_path / "in", tmp_path / "out")
    cut_while_naming(desk, asked, 1)
    (tmp_path / "out" / "a.csv").unlink()
    resumed = dataclasses.replace(asked, resume=True)
    run(resumed, desk.client)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.csv", "b.csv"}
    shutil.rmtree(tmp_path / "out")
    cut_while_naming(desk, asked)
    next((work_path(asked) / "staged").iterdir()).unlink()
    with pytest.raises(RunError, match=r"is gone: remove .* to begin again"):
        run(resumed, desk.client)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["csv", "duckdb"])
@pytest.mark.parametrize("late", [False, True])
def test_what_appears_meanwhile_stays(form: str, late: bool, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While parts are made, or in the last instant: once all checks are over."""
    source, output = tmp_path / f"in.{form}", tmp_path / f"out.{form}"
    write(source, ROWS)
    asked = job(source, output)

    def appears(original: Any) -> Any:
        def call(*args: Any) -> Any:
            write(output, ROWS[:2])
            return original(*args)

        return call

    owner, name = (Outputs, "_give") if late else (runs._Making, "require_unchanged")
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, appears(getattr(owner, name)))
        with pytest.raises(OutputExists, match="appeared meanwhile" if late else "exists"):
            run(asked, desk.client)
    assert read(output) == ROWS[:2]
    if late:
        with pytest.raises(OutputExists, match="--resume"):
            run(dataclasses.replace(asked, resume=True), desk.client)
        assert read(output) == ROWS[:2]
    run(dataclasses.replace(asked, resume=True, force=True), desk.client)
    assert len(read(output)) == len(ROWS)


def test_a_table_that_has_its_name_already_is_known_again(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "in.duckdb", ROWS)
    with duckdb.connect(str(tmp_path / "out.duckdb")) as con:
        con.execute("create table other as select 1 as one")
    asked = job(tmp_path / "in.duckdb", tmp_path / "out.duckdb")
    original = Outputs._give
    with monkeypatch.context() as patch:
        patch.setattr(Outputs, "_give", lambda *args: cut(original(*args)))
        with pytest.raises(Cut):
            run(asked, desk.client)
    run(dataclasses.replace(asked, resume=True), desk.client)
    assert len(read(tmp_path / "out.duckdb")) == len(ROWS)
    with duckdb.connect(str(tmp_path / "out.duckdb")) as con:
        assert con.sql("from other").fetchall() == [(1,)]


def cut(given: object) -> None:
    raise Cut


def test_two_runs_to_tables_of_one_new_file_both_have_theirs(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.duckdb", ROWS)
    first, second = (
        dataclasses.replace(job(tmp_path / f"{name}.duckdb", tmp_path / "new.duckdb"), table=name) for name in ("a", "b")
    )
    original, begun = Outputs._give, list[Any]()

    def give(*args: Any) -> set[Path]:
        if not begun:
            begun.append(run)
            run(second, desk.client)
        return original(*args)

    monkeypatch.setattr(Outputs, "_give", give)
    run(first, desk.client)
    with duckdb.connect(str(tmp_path / "new.duckdb")) as con:
        assert con.sql("select count(*) from a join b using (name, place)").fetchall() == [
            (len([1 for name, _ in ROWS if name]),)
        ]


def test_a_table_gets_into_its_file_within_the_bounds_of_a_run(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB's own are most of the memory, and a folder where the process happens to be."""
    write(tmp_path / "in.duckdb", ROWS)
    asked = job(tmp_path / "in.duckdb", None)
    original: Any = duckdb.connect
    settings: list[Any] = []

    def connect(*args: Any, config: Any = None, **options: Any) -> Any:
        settings.append(config)
        return original(*args, config=config or {}, **options)

    with monkeypatch.context() as patch:
        patch.setattr(duckdb, "connect", connect)
        run(asked, desk.client)
    assert [Path(config["temp_directory"]).is_relative_to(work_path(asked)) for config in settings] == [True, True]
    assert {config["memory_limit"] for config in settings} == {"256MB"}
