"""A run that is cut off after any part, while outputs get their names, or by a rotation; and what it refuses to resume."""

import dataclasses
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
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
from quorumvault.files.job import Done, Job, RunError, SourceChanged
from quorumvault.files.manifest import Manifest
from quorumvault.files.outputs import OutputExists, Outputs
from quorumvault.files.sources import InputsError
from quorumvault.files.work_folder import ManifestMismatch, RunRefused, UnfinishedRun, work_path
from tests.rigs import tables
from tests.rigs.tables import FORMATS, Desk, job, names, read, write
from tests.rigs.vault import key_text

pytestmark = pytest.mark.slow

ROWS: list[tables.Row] = [(None if number % 5 == 3 else f"name {number % 7}", f"row {number}") for number in range(19)]


class Cut(BaseException):
    """Stands in for a kill: nothing catches it."""


def cut(*given: object) -> None:
    raise Cut


class Place:
    """A folder with tables, runs over them, and cuts at any point of a run. ``/`` joins paths, as with a Path."""

    def __init__(self, desk: Desk, path: Path) -> None:
        self.desk = desk
        self.path = path
        self.run, self.refused = desk.run, desk.refused

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def write(self, *names: str, rows: list[tables.Row] = ROWS) -> None:
        for name in names:
            (self / name).parent.mkdir(exist_ok=True)
            write(self / name, rows)

    def job(self, source: str, output: str | None = None, *arguments: Any, **options: Any) -> Job:
        return job(self / source, None if output is None else self / output, *arguments, **options)

    def cut_off(self, asked: Job, owner: type, method: str, instant: int, then: Callable[[], object] = cut) -> None:
        """Runs until just before call number ``instant`` of ``method``, counted from 0. There ``then`` cuts the run."""
        with pytest.MonkeyPatch.context() as patch:
            before_call(patch, owner, method, instant, then)
            with pytest.raises(Cut):
                self.run(asked)

    def unfinished(self, form: str = "csv") -> Job:
        """A job with two finished parts."""
        self.write(f"in.{form}")
        asked = self.job(f"in.{form}", f"out.{form}")
        self.cut_off(asked, work_folder.WorkFolder, "part_files", 2)
        assert not (self / f"out.{form}").exists()
        return asked

    def cut_while_naming(self, source: str, names_given: int = 0) -> Job:
        """A job in which so many outputs have been given their names."""
        asked = self.job(source, source.replace("in", "out", 1))
        self.cut_off(asked, Outputs, "_give", names_given)
        return asked

    @property
    def epoch(self) -> int:
        return self.desk.client.epoch()

    def names(self) -> list[str]:
        return sorted(path.name for path in self.path.iterdir())


@pytest.fixture
def at(desk: Desk, tmp_path: Path) -> Place:
    return Place(desk, tmp_path)


def before_call(patch: pytest.MonkeyPatch, owner: Any, method: str, instant: int, then: Callable[[], object]) -> None:
    original, calls = getattr(owner, method), []

    def call(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == instant + 1:
            then()
        return original(*args, **options)

    patch.setattr(owner, method, call)


def after_part(patch: pytest.MonkeyPatch, then: Callable[[int], object]) -> None:
    """Calls ``then`` with the number of finished parts, each time there is one more."""
    original = Manifest.add

    def add(manifest: Manifest, part: Any) -> None:
        original(manifest, part)
        then(len(manifest.parts))

    patch.setattr(Manifest, "add", add)


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
    """After each part the test keeps a copy of the work folder. It then puts each copy back and resumes the run."""
    at = Place(desk, Path(tempfile.mkdtemp(dir=tmp_path)))
    output, kept = at / f"out.{form}", at / "kept"
    if form == "csv":
        rows = [(name or None, place) for name, place in rows]  # the csv module reads both as one cell
    at.write(f"in.{form}", rows=rows)
    asked = at.job(f"in.{form}", f"out.{form}")
    work = work_path(asked)
    with pytest.MonkeyPatch.context() as patch:
        after_part(patch, lambda count: shutil.copytree(work, kept / str(count)))
        whole = at.run(asked)
    expected = output.read_bytes() if form != "duckdb" else read(output)
    assert (whole.parts_kept, whole.rows) == (0, len(rows))
    for count in range(1, whole.parts_done + 1):
        output.unlink()
        (kept / str(count)).rename(work)
        resumed = at.run(asked, resume=True)
        assert (resumed.parts_kept, resumed.parts_done) == (count, whole.parts_done - count)
        assert (resumed.values, resumed.rows, resumed.epochs) == (whole.values, whole.rows, whole.epochs)
        assert (output.read_bytes() if form != "duckdb" else read(output)) == expected
        assert not work.exists()
    at.run(at.job(f"out.{form}", f"back.{form}", "detokenize"))
    assert read(at / f"back.{form}") == read(at / f"in.{form}") == rows


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_progress_goes_on_where_it_was_cut_off(form: str, at: Place) -> None:
    """Finished parts count at once, as kept. The final count is the size of the source, even if a part is made again."""
    told: list[Done] = []
    asked = at.unfinished(form)
    runs.run(dataclasses.replace(asked, resume=True), at.desk.client, told.append)
    assert told[0].rows == told[0].kept == told[-1].kept == 2 * tables.PART_ROWS
    assert told[0].size > 0
    assert told == sorted(told)
    assert told[-1].rows == len(ROWS)
    header = len("name,place\n") if form == "csv" else 0
    assert told[-1].size == pytest.approx((at / f"in.{form}").stat().st_size - header, rel=0.05)

    asked = dataclasses.replace(asked, force=True)
    at.cut_off(asked, work_folder.WorkFolder, "part_files", 2)
    at.desk.rotate()
    again: list[Done] = []
    runs.run(dataclasses.replace(asked, resume=True), at.desk.client, again.append)
    assert again[0] == told[0]
    assert again[-1] == told[-1]._replace(kept=0)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_kill_while_names_are_given_ends_with_all_names(in_place: bool, at: Place) -> None:
    at.write("in/a.csv", "in/b.csv", "in/c.csv")
    at.run(at.job("in", "tok"))
    at.desk.rotate()
    crosswalk = at / "x.parquet"
    asked = at.job("tok", None if in_place else "out", "retokenize", crosswalk=crosswalk)
    shutil.copytree(at / "tok", at / "before")
    for count in range(1, 4):
        crosswalk.unlink(missing_ok=True)
        shutil.rmtree(at / "tok")
        shutil.copytree(at / "before", at / "tok")
        at.cut_off(dataclasses.replace(asked, force=True), Outputs, "_give", count)
        assert crosswalk.exists()  # the only record of what is being replaced
        if in_place:
            at.refused(UnfinishedRun, "only --resume", asked, force=True)
        resumed = at.run(asked, resume=True)
        assert (resumed.parts_done, resumed.look_ups, resumed.rows) == (0, 0, 3 * len(ROWS))
        done, active = at / ("tok" if in_place else "out"), {at.epoch}
        assert {path.name: epochs(path) for path in done.iterdir()} == {"a.csv": active, "b.csv": active, "c.csv": active}
        assert crosswalk.exists()
        assert not work_path(asked).exists()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("operation", "parts"), [("tokenize", 3), ("retokenize", 10)])
def test_a_rotation_after_any_part_leaves_one_epoch(
    form: str, operation: str, parts: int, at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    at.write(f"in/in.{form}", f"in/other.{form}")
    of_tables = form == "duckdb"
    if operation == "retokenize":
        at.run(at.job("in", "tok", of_tables=of_tables))
    before_call(monkeypatch, Manifest, "add", parts - 1, at.desk.rotate)
    report = at.run(at.job("tok" if operation == "retokenize" else "in", "out", operation, of_tables=of_tables))
    # Later parts repeat names, whose answers are remembered. Those parts then have the older epoch too.
    assert (report.epochs, report.parts_done) == ([at.epoch], 20)
    assert [epochs(path) for path in (at / "out").iterdir()] == [{at.epoch}] * 2
    at.run(at.job("out", "back", "detokenize", of_tables=of_tables))
    assert [read(path) for path in (at / "back").iterdir()] == [ROWS] * 2


@pytest.mark.parametrize("form", FORMATS)
def test_a_rotation_between_kill_and_resume_leaves_one_epoch(form: str, at: Place) -> None:
    asked = at.unfinished(form)
    at.desk.rotate()
    assert at.run(asked, resume=True).parts_kept == 0
    assert epochs(at / f"out.{form}") == {at.epoch}


def test_epochs_that_never_stand_still_are_an_error_that_can_be_gone_on_from(at: Place) -> None:
    at.write("in.csv")
    asked = at.job("in.csv", "out.csv")
    with pytest.MonkeyPatch.context() as patch:
        after_part(patch, lambda count: at.desk.rotate())
        at.refused(qv.EpochMoved, "--resume", asked)
    assert not (at / "out.csv").exists()
    at.run(asked, resume=True)
    assert epochs(at / "out.csv") == {at.epoch}


def test_an_unfinished_run_is_gone_on_with_or_thrown_away_but_not_passed_over(at: Place) -> None:
    asked = at.unfinished()
    at.refused(UnfinishedRun, "2 finished parts: --resume goes on, --force begins again", asked)
    ways: tuple[dict[str, Any], ...] = ({"force": True}, {"resume": True})
    for how in ways:  # the second time there is nothing to resume
        begun = at.run(asked, **how)
        assert (begun.parts_kept, begun.parts_done) == (0, 5)
        at.refused(OutputExists, "out.csv exists", asked, resume=True)
        (at / "out.csv").unlink()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"columns": ("place",)}, "the columns .--column. was name and is place"),
        ({"operation": "detokenize"}, "the operation was tokenize and is detokenize"),
        ({"if_token": "keep"}, "--if-token was fail and is keep"),
        ({"cast": ("place",)}, "--cast was none and is place"),
        ({"typed": True}, "--typed was false and is true"),
        ({"missing": "null"}, "--missing was keep and is null"),
        ({"status": True}, "--status was false and is true"),
        ({"rejects": Path("r.csv")}, "--rejects was none and is .*r.csv"),
    ],
)
def test_a_run_that_is_about_something_else_is_not_gone_on_with(change: dict[str, Any], words: str, at: Place) -> None:
    asked = at.unfinished()
    at.refused(ManifestMismatch, words, asked, resume=True, **change)
    assert at.run(asked, resume=True).parts_kept == 2


def test_another_key_or_a_changed_source_is_not_gone_on_with(at: Place) -> None:
    asked = at.unfinished()
    with qv.Client(at.desk.url, api_key=key_text("lab")) as lab:
        at.refused(ManifestMismatch, "the API key was admin and is lab", asked, lab, resume=True)
    at.write("in.csv", rows=ROWS[1:])
    at.refused(ManifestMismatch, r"in\.csv has changed since", asked, resume=True)
    at.write("more.csv")
    sources = (*asked.sources, *at.job("more.csv").sources)
    at.refused(ManifestMismatch, "the input files, or the outputs, are not the same", asked, resume=True, sources=sources)


@pytest.mark.parametrize("form", FORMATS)
def test_a_source_that_changes_meanwhile_is_an_error_and_nothing_appears(
    form: str, at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    at.write(f"in.{form}")
    before_call(monkeypatch, runs._Making, "require_unchanged", 0, lambda: at.write(f"in.{form}", rows=ROWS[:-1]))
    at.refused(SourceChanged, f"in.{form}.* was changed while it was read", at.job(f"in.{form}", f"out.{form}"))
    assert [path.name for path in at.path.iterdir()] == [f"in.{form}"], "what --resume would refuse is not kept"


@pytest.mark.parametrize("form", FORMATS)
def test_a_part_that_is_damaged_is_made_again(form: str, at: Place) -> None:
    asked = at.unfinished(form)
    part = work_path(asked) / "000000.data"
    content = part.read_bytes()
    half = len(content) // 2
    part.write_bytes(content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :])
    resumed = at.run(asked, resume=True)
    assert (resumed.parts_kept, resumed.parts_done) == (1, 4)
    at.run(at.job(f"out.{form}", f"back.{form}", "detokenize"))
    assert read(at / f"back.{form}") == ROWS


def test_a_line_that_was_cut_off_is_no_part_and_no_manifest_is_refused(at: Place) -> None:
    asked = at.unfinished()
    parts, manifest = work_path(asked) / "parts.jsonl", work_path(asked) / "manifest.json"
    whole = manifest.read_text()
    for text, words in (("{}", "no manifest of this version"), (whole.replace('"format": 1', '"format": 2'), "has format 2")):
        manifest.write_text(text)
        at.refused(qv.QuorumVaultError, words, asked, resume=True)
    manifest.write_text(whole)
    parts.write_bytes(parts.read_bytes()[:-20])
    assert at.run(asked, resume=True).parts_kept == 1


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_spill_folder_is_private_and_gone_whatever_happens(form: str, elsewhere: bool, at: Place) -> None:
    spill = at / "spill"
    spill.mkdir()
    seen: list[Path] = []
    at.write(f"in.{form}")
    asked = at.job(f"in.{form}", f"out.{form}", spill=spill if elsewhere else None)
    work = work_path(asked)

    def look(count: int) -> None:
        (folder,) = (spill if elsewhere else work).glob("quorumvault-spill-*")
        seen.append(folder)
        assert [stat.S_IMODE(path.stat().st_mode) for path in (work, folder)] == [0o700, 0o700]
        assert any(folder.iterdir())
        if count == 2:
            shutil.copytree(folder, at / "left")
            raise Cut

    with pytest.MonkeyPatch.context() as patch:
        after_part(patch, look)
        with pytest.raises(Cut):
            at.run(asked)
    assert not seen[0].exists()
    (at / "left").rename(seen[0])  # as a kill would have left it
    if elsewhere:
        assert (work / work_folder._SPILL_NOTE).read_text() == str(seen[0])
    at.run(asked, resume=True)
    assert list(spill.iterdir()) == []
    assert at.names() == [f"in.{form}", f"out.{form}", "spill"]


def test_one_process_at_a_time(at: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = dataclasses.replace(at.unfinished(), resume=True)
    refused: list[int] = []

    def again(count: int) -> None:
        if not refused:
            at.refused(RunRefused, "another process is at this run", asked)
            refused.append(count)

    after_part(monkeypatch, again)
    at.run(asked)
    assert refused


def test_a_folder_that_is_removed_while_it_is_waited_for_is_made_anew(at: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    at.write("in.csv")
    asked = at.job("in.csv", "out.csv")
    locked: list[object] = []
    before_call(monkeypatch, fcntl, "flock", 0, lambda: shutil.rmtree(work_path(asked)))  # by the process that held it
    before_call(monkeypatch, fcntl, "flock", 1, lambda: locked.append("again"))
    assert at.run(asked).rows == len(ROWS)
    assert locked
    assert read(at / "out.csv") != []


@pytest.mark.parametrize("listed", ["rejects", "crosswalk"])
def test_a_list_on_another_file_system_is_refused_before_anything_is_done(
    listed: str, at: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    at.write("in.csv")
    at.run(at.job("in.csv", "tok.csv"))
    at.desk.rotate()
    before = (at / "tok.csv").read_bytes()
    (at / "mount").mkdir()
    apart(monkeypatch, at / "mount")
    lists: Any = {listed: at / "mount/list.csv"}
    at.desk.asked()
    at.refused(InputsError, r"list\.csv is on another file system", at.job("tok.csv", None, "retokenize", **lists))
    assert (at / "tok.csv").read_bytes() == before
    assert at.desk.asked() == []
    assert at.names() == ["in.csv", "mount", "tok.csv"]
    assert list((at / "mount").iterdir()) == []


def test_a_file_in_place_that_is_a_link_to_another_file_system_is_refused(at: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    at.write("in/in.csv", "mount/mount.csv")
    (at / "in/z.csv").symlink_to(at / "mount/mount.csv")
    apart(monkeypatch, at / "mount")
    at.refused(InputsError, r"z\.csv is on another file system", at.job("in"))
    assert read(at / "in/in.csv") == read(at / "mount/mount.csv") == ROWS


def apart(monkeypatch: pytest.MonkeyPatch, mount: Path) -> None:
    """Makes this folder look like a file system of its own."""

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
def test_outputs_that_would_be_one_file_are_refused(output: str | None, lists: dict[str, str], at: Place) -> None:
    at.write("in.csv")
    (at / "folder").mkdir()
    (at / "link.csv").symlink_to("in.csv")
    options: Any = {name: at / path for name, path in lists.items()}
    at.refused(InputsError, "name another", at.job("in.csv", output, force=True, **options))
    assert at.names() == ["folder", "in.csv", "link.csv"]
    assert read(at / "in.csv") == ROWS


def test_a_table_is_its_own_source_whatever_its_case(at: Place) -> None:
    at.write("in.duckdb")
    for table in ("T", "main.t"):
        at.refused(InputsError, "the output is the input", at.job("in.duckdb", "in.duckdb", force=True), table=table)
    at.refused(InputsError, "name another", at.job("in.duckdb", "out.duckdb", rejects=at / "out.duckdb"))


def commit_to_the_log(path: Path) -> None:
    """Commits a change that stays in the log beside the file."""
    before = path.read_bytes()
    with duckdb.connect(str(path)) as con:
        con.execute("pragma disable_checkpoint_on_shutdown")
        con.execute("update t set place = 'changed'")
    assert path.read_bytes() == before


def test_a_change_that_is_in_the_log_of_a_duckdb_file_is_a_change(at: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = at.unfinished("duckdb")
    commit_to_the_log(at / "in.duckdb")
    at.refused(ManifestMismatch, r"in\.duckdb has changed since", asked, resume=True)
    at.write("in.duckdb")
    after_part(monkeypatch, lambda count: commit_to_the_log(at / "in.duckdb") if count == 2 else None)
    at.refused(SourceChanged, r"in\.duckdb::t was changed while it was read", asked, force=True)
    assert not (at / "out.duckdb").exists()


@pytest.mark.parametrize("change", [{"operation": "detokenize"}, {"columns": ("place",)}, {"rejects": Path("r.csv")}, {}])
def test_a_run_that_gives_names_is_not_ended_by_another_command(change: dict[str, Any], at: Place) -> None:
    at.write("in.csv")
    at.write("other.csv", rows=ROWS[:1])
    asked = at.cut_while_naming("in.csv")
    at.refused(ManifestMismatch, "does not fit", asked, resume=True, **change or {"sources": at.job("other.csv").sources})
    assert not (at / "out.csv").exists()
    at.write("in.csv", rows=ROWS[:1])  # everything that the run needs from it has been read
    assert at.run(asked, resume=True).rows == len(ROWS)
    assert len(read(at / "out.csv")) == len(ROWS)


def test_a_run_that_is_thrown_away_is_not_mistaken_for_one_that_is_done(at: Place) -> None:
    at.write("in.csv")
    asked = at.cut_while_naming("in.csv")
    at.cut_off(dataclasses.replace(asked, force=True), Manifest, "discard", 0)
    assert at.run(asked, resume=True).rows == len(ROWS)
    assert len(read(at / "out.csv")) == len(ROWS)


def test_what_was_made_and_is_lost_is_an_error(at: Place) -> None:
    at.write("in/a.csv", "in/b.csv")
    asked = at.cut_while_naming("in", 1)
    (at / "out/a.csv").unlink()
    at.run(asked, resume=True)
    assert {path.name for path in (at / "out").iterdir()} == {"a.csv", "b.csv"}
    shutil.rmtree(at / "out")
    at.cut_while_naming("in")
    next((work_path(asked) / "staged").iterdir()).unlink()
    at.refused(RunError, r"is gone: remove .* to begin again", asked, resume=True)
    assert not (at / "out").exists()


@pytest.mark.parametrize("form", ["csv", "duckdb"])
@pytest.mark.parametrize("late", [False, True])
def test_what_appears_meanwhile_stays(form: str, late: bool, at: Place) -> None:
    """The file appears while parts are made, or at the last moment, once all checks are over."""
    output = f"out.{form}"
    at.write(f"in.{form}")
    asked = at.job(f"in.{form}", output)
    owner, method = (Outputs, "_give") if late else (runs._Making, "require_unchanged")
    with pytest.MonkeyPatch.context() as patch:
        before_call(patch, owner, method, 0, lambda: at.write(output, rows=ROWS[:2]))
        at.refused(OutputExists, "appeared meanwhile: move it away and --resume", asked)
    assert read(at / output) == ROWS[:2]
    at.refused(OutputExists, "--resume", asked, resume=True)
    assert read(at / output) == ROWS[:2]
    at.run(asked, resume=True, force=True)
    assert len(read(at / output)) == len(ROWS)


def test_a_table_that_has_its_name_already_is_known_again(at: Place) -> None:
    at.write("in.duckdb")
    with duckdb.connect(str(at / "out.duckdb")) as con:
        con.execute("create table other as select 1 as one")
    asked = at.job("in.duckdb", "out.duckdb")
    at.cut_off(asked, Manifest, "discard", 1)  # at the end, once all outputs have their names
    at.run(asked, resume=True)
    assert len(read(at / "out.duckdb")) == len(ROWS)
    with duckdb.connect(str(at / "out.duckdb")) as con:
        assert con.sql("from other").fetchall() == [(1,)]


def test_two_runs_to_tables_of_one_new_file_both_have_theirs(at: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    at.write("a.duckdb", "b.duckdb")
    first, second = (dataclasses.replace(at.job(f"{name}.duckdb", "new.duckdb"), table=name) for name in ("a", "b"))
    before_call(monkeypatch, Outputs, "_give", 0, lambda: at.run(second))
    at.run(first)
    with duckdb.connect(str(at / "new.duckdb")) as con:
        assert len(con.sql("from a join b using (name, place)").fetchall()) == sum(name is not None for name, _ in ROWS)


def test_a_table_gets_into_its_file_within_the_bounds_of_a_run(at: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB's own defaults are most of the memory, and a folder in the process's working directory."""
    at.write("in.duckdb")
    asked = at.job("in.duckdb")
    settings: list[tuple[bool, str]] = []
    connected = duckdb.connect

    def connect(*place: Any, config: Any) -> duckdb.DuckDBPyConnection:
        folder = Path(config["temp_directory"]).resolve()  # resolved now, while the run holds it open
        settings.append((folder.is_relative_to(work_path(asked)), config["memory_limit"]))
        return connected(**dict(zip(("database",), place, strict=False)), config=config)

    with monkeypatch.context() as patch:
        patch.setattr(duckdb, "connect", connect)
        at.run(asked)
    assert settings == [(True, "256MB")] * 2
