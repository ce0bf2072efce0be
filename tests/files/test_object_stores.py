"""Runs from and to object stores, on a local S3 server and a web server: all or nothing, resumable, no secret in any output."""

import gc
import gzip
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner, Result
from deltalake import write_deltalake

from quorumvault.cli import main
from quorumvault.crypto.tokens import is_token
from quorumvault.files import new_object, object_store, uploads
from quorumvault.files.new_object import NewObject
from quorumvault.files.uploads import Uploads
from quorumvault.files.work_folder import WorkFolder
from tests import ROOT
from tests.rigs import certificates, stores, tables
from tests.rigs.stores import Store
from tests.rigs.tables import FORMATS, TEXT, Desk, Row, read, write
from tests.rigs.vault import key_text

pytestmark = pytest.mark.slow

ROWS: list[Row] = [(None if number % 5 == 3 else f"name {number % 7}", f"row {number}") for number in range(19)]


@pytest.fixture(scope="module")
def one_store() -> Iterator[Store]:
    with stores.store() as made:
        yield made
        # Finalizers of the stores' clients close connections. Later they could run in a test whose event loop is simulated.
        gc.collect()


@pytest.fixture
def store(one_store: Store) -> Iterator[Store]:
    """An empty store. At the end of the test no upload may be left incomplete."""
    one_store.clear()
    yield one_store
    assert one_store.uploads() == []


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Cut(BaseException):
    """Stands in for a kill: nothing catches it."""


def quorumvault(desk: Desk, *arguments: str, stdin: bytes = b"") -> Result:
    environment = {"QUORUMVAULT_URL": desk.url, "QUORUMVAULT_API_KEY": key_text("admin")}
    return CliRunner().invoke(main, arguments, input=stdin, env=environment)


def done(desk: Desk, *arguments: str, stdin: bytes = b"") -> Result:
    result = quorumvault(desk, *arguments, stdin=stdin)
    assert result.exit_code == 0, (result.stderr, result.exception)
    return result


def table(form: str, rows: Sequence[Row] = ROWS) -> bytes:
    path = Path(f"made.{form}")
    path.unlink(missing_ok=True)
    write(path, rows)
    return path.read_bytes()


def rows_of(store: Store, key: str) -> list[Row]:
    path = Path("got" + Path(key).suffix)
    path.unlink(missing_ok=True)
    path.write_bytes(store.get(key))
    return read(path)


def left_here() -> list[str]:
    return [name for name in os.listdir() if name.startswith(".")]


def table_mark(form: str) -> str:
    return "::t" if form == "duckdb" else ""


@pytest.mark.parametrize("form", FORMATS)
def test_from_the_store_to_the_store_and_back(form: str, desk: Desk, store: Store) -> None:
    url = store.put(f"raw/in.{form}", table(form)) + table_mark(form)
    tokens, values = f"s3://lake/tok/out.{form}{table_mark(form)}", f"s3://lake/back.{form}{table_mark(form)}"
    done(desk, "tokenize", url, "--column", "name", "-o", tokens)
    made = rows_of(store, f"tok/out.{form}")
    assert [place for _, place in made] == [place for _, place in ROWS]
    assert all(is_token(name) for name, _ in made if name is not None)
    done(desk, "detokenize", tokens, "--column", "name", "-o", values)
    assert rows_of(store, f"back.{form}") == ROWS
    if form in TEXT:
        assert store.get(f"back.{form}") == store.get(f"raw/in.{form}")
    assert left_here() == []


def test_between_the_disk_and_the_store_in_every_spelling(desk: Desk, store: Store) -> None:
    Path("in.csv").write_bytes(table("csv"))
    done(desk, "tokenize", "in.csv", "--column", "name", "-o", "s3a://lake//odd//out.csv.gz")
    assert store.keys() == ["/odd//out.csv.gz"], "a slash was lost"
    done(desk, "detokenize", "S3://lake//odd//out.csv.gz", "--column", "name", "-o", "back.csv")
    assert Path("back.csv").read_bytes() == Path("in.csv").read_bytes()
    assert Path("back.csv").stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir()) == ["back.csv", "in.csv", "made.csv"]


def test_folders_and_globs_keep_their_relative_names(desk: Desk, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are more objects than one page of a listing holds."""
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")
    keys = [f"raw/day={number}/part.csv" for number in range(5)]
    for key in [*keys, "raw/_SUCCESS", "raw/.hidden.csv", "raw/_spark/x.csv", "raw/notes.txt", "rawer/other.csv"]:
        store.put(key, table("csv", [("someone", key)]))
    store.put("raw/", b"")
    for number, name in enumerate(("s3://lake/raw", "s3://lake/raw/", "s3://lake/raw/**/*.csv", "s3://lake/raw/day=?/p*.csv")):
        done(desk, "tokenize", name, "--column", "name", "-o", f"s3://lake/out{number}")
        assert store.keys(f"out{number}") == [key.replace("raw", f"out{number}", 1) for key in keys]
    done(desk, "tokenize", "s3://lake/raw/", "--column", "name", "-o", "here")
    assert sorted(str(path) for path in Path("here").rglob("*.csv")) == [key.replace("raw", "here", 1) for key in keys]
    done(desk, "tokenize", f"s3://lake/{keys[0]}", "--column", "name", "-o", "s3://lake/one/")
    assert store.keys("one") == ["one/part.csv"]


@pytest.mark.parametrize("key", ["raw/../../out.csv", "raw//etc.csv", "raw/./x.csv"])
def test_no_name_of_an_object_leads_out_of_a_folder(key: str, desk: Desk, store: Store) -> None:
    store.put(key, table("csv"))
    result = quorumvault(desk, "tokenize", "s3://lake/raw/", "--column", "name", "-o", "here")
    assert result.exit_code == 2
    assert "has a part that is empty, or leads to another folder" in result.stderr
    assert not Path("here").exists()


def test_what_is_there_stays_without_force(desk: Desk, store: Store) -> None:
    url = store.put("in.csv", table("csv"))
    store.put("out.csv", b"precious")
    asked = ("tokenize", url, "--column", "name")
    refused = quorumvault(desk, *asked, "-o", "s3://lake/out.csv")
    assert refused.exit_code == 2
    assert "s3://lake/out.csv exists: name another object, or give --force" in refused.stderr
    same = quorumvault(desk, *asked, "-o", "s3a://lake/in.csv", "--force")
    assert same.exit_code == 2
    assert "the output is the input" in same.stderr
    assert (store.get("out.csv"), store.get("in.csv")) == (b"precious", table("csv"))
    done(desk, *asked, "-o", "s3://lake/out.csv", "--force")
    assert len(rows_of(store, "out.csv")) == len(ROWS)
    Path("in.duckdb").write_bytes(table("duckdb"))
    store.put("lake.duckdb", b"another table")
    into = quorumvault(desk, "tokenize", "in.duckdb::t", "--column", "name", "-o", "s3://lake/lake.duckdb::t", "--force")
    assert into.exit_code == 2
    assert "no table is put into an object that is there" in into.stderr


def test_what_appears_meanwhile_stays(desk: Desk, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    url = store.put("in.csv", table("csv"))
    complete = Uploads.complete

    def late(self: Uploads, outgoing: list[uploads.Outgoing]) -> object:
        if outgoing:
            store.put("out.csv", b"somebody else's")
        return complete(self, outgoing)

    monkeypatch.setattr(Uploads, "complete", late)
    result = quorumvault(desk, "tokenize", url, "--column", "name", "-o", "s3://lake/out.csv")
    assert result.exit_code == 2
    assert "s3://lake/out.csv has appeared meanwhile" in result.stderr
    assert store.get("out.csv") == b"somebody else's"
    monkeypatch.setattr(Uploads, "complete", complete)
    done(desk, "tokenize", url, "--column", "name", "-o", "s3://lake/out.csv", "--resume", "--force")
    assert len(rows_of(store, "out.csv")) == len(ROWS)


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks as small as S3 allows the parts of an upload to be."""
    monkeypatch.setattr(new_object, "BLOCK_BYTES", 5 << 20)


@pytest.fixture
def large(store: Store) -> list[str]:
    """Two tables whose tokens take several parts of an upload each, and a small table."""
    for name in ("a", "b"):
        store.put(f"big/{name}.csv", table("csv", [("someone", f"{name} {'.' * 125_000}") for _ in range(100)]))
    store.put("big/c.csv", table("csv"))
    return ["tokenize", "s3://lake/big/", "--column", "name", "-o", "s3://lake/out"]


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("instant", range(4))
def test_a_run_that_is_killed_at_any_instant_of_an_upload_goes_on(
    instant: int, large: list[str], desk: Desk, one_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first upload is completed, no output is visible. --resume makes all of them appear and discards the rest."""
    store = one_store
    cuts = [(NewObject, "write", 2), (WorkFolder, "sync_staged", 0), (NewObject, "complete", 1), (Uploads, "discard", 0)]
    owner, method, calls = cuts[instant]
    with monkeypatch.context() as patch:
        original, discard, count = getattr(owner, method), NewObject.discard, itertools.count()
        is_dead = threading.Event()

        def cut(*given: object, **named: object) -> object:
            if next(count) >= calls:
                is_dead.set()
                raise Cut
            return original(*given, **named)

        def tidied(made: NewObject) -> None:
            if is_dead.is_set():
                made._file.closed = True
            else:
                discard(made)

        patch.setattr(owner, method, cut)
        patch.setattr(NewObject, "discard", tidied)
        with pytest.raises(Cut):
            CliRunner().invoke(
                main, large, env={"QUORUMVAULT_URL": desk.url, "QUORUMVAULT_API_KEY": key_text("admin")}, catch_exceptions=False
            )
    seen = store.keys("out")
    assert (seen == []) is (instant < 2)
    assert bool(store.uploads()) is (instant < 3)
    assert quorumvault(desk, *large).exit_code == 1, "an unfinished run is told"
    done(desk, *large, "--resume")
    assert store.keys("out") == ["out/a.csv", "out/b.csv", "out/c.csv"]
    assert store.is_multipart("out/a.csv")
    assert [place[0] for _, place in rows_of(store, "out/b.csv")] == ["b"] * 100
    assert left_here() == []


def test_an_input_that_changes_between_two_runs_is_refused(desk: Desk, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    url = store.put("in.csv", table("csv"))
    asked = ("tokenize", url, "--column", "name", "-o", "s3://lake/out.csv")
    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, "clear_staged", lambda work: (_ for _ in ()).throw(OSError("cut")))
        assert quorumvault(desk, *asked).exit_code == 1
    assert len(left_here()) == 1
    store.put("in.csv", table("csv", ROWS[1:]))
    changed = quorumvault(desk, *asked, "--resume")
    assert changed.exit_code == 1
    assert "s3://lake/in.csv has changed since" in changed.stderr
    store.put("in.csv", table("csv"))
    done(desk, *asked, "--resume")
    assert len(rows_of(store, "out.csv")) == len(ROWS)


def test_an_input_that_changes_meanwhile_ends_a_run(desk: Desk, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    url = store.put("in.csv", table("csv"))
    clear = WorkFolder.clear_staged

    def changing(work: WorkFolder) -> None:
        store.put("in.csv", table("csv", ROWS[1:]))
        clear(work)

    monkeypatch.setattr(WorkFolder, "clear_staged", changing)
    result = quorumvault(desk, "tokenize", url, "--column", "name", "-o", "s3://lake/out.csv")
    assert result.exit_code == 1
    assert "s3://lake/in.csv was changed while it was read" in result.stderr
    assert store.keys() == ["in.csv"]


def test_streams_to_and_from_the_store(desk: Desk, store: Store) -> None:
    url = store.put("in.csv.gz", gzip.compress(table("csv")))
    tokens = done(desk, "tokenize", url, "--column", "name").stdout_bytes
    assert tokens.count(b"\n") == 1 + len(ROWS)
    done(desk, "detokenize", "-", "--format", "csv", "--column", "name", "-o", "s3://lake/back.csv", stdin=tokens)
    assert store.get("back.csv") == table("csv")
    broken = quorumvault(desk, "tokenize", "-", "--format", "csv", "--column", "name", "-o", "s3://lake/x.csv", stdin=tokens)
    assert broken.exit_code == 1
    assert store.keys("x") == []


def test_tables_of_every_format_and_place_join_as_the_originals_did(desk: Desk, store: Store) -> None:
    """Each table is tokenized where it is. Text comes back byte for byte."""
    people: list[Row] = [(f"person {number}", f"city {number % 3}") for number in range(9)]
    visits: list[Row] = [(f"person {number * 5 % 12}" if number % 7 else None, f"visit {number}") for number in range(40)]
    joined, known = 0, {name for name, _ in people}
    for name, _ in visits:
        joined += name in known
    done(
        desk,
        "tokenize",
        store.put("people.csv.gz", gzip.compress(table("csv", people))),
        "--column",
        "name",
        "-o",
        "s3://lake/p.csv",
    )
    Path("p.csv").write_bytes(store.get("p.csv"))
    for name in ("v.csv", "v.jsonl", "v.parquet", "v.duckdb"):
        write(Path(name), visits)
    Path("v.tsv.gz").write_bytes(gzip.compress(Path("v.csv").read_bytes().replace(b",", b"\t")))
    store.put("v.csv", Path("v.csv").read_bytes())
    write_deltalake("v.delta", duckdb.read_parquet("v.parquet").to_arrow_table())
    for source, tokens, rows in (
        ("v.csv", "t.csv", "'t.csv'"),
        ("v.tsv.gz", "t.tsv.gz", "read_csv('t.tsv.gz', delim='\t')"),
        ("v.jsonl", "t.jsonl", "'t.jsonl'"),
        ("v.parquet", "t.parquet", "'t.parquet'"),
        ("v.duckdb::t", "t.pq.parquet", "'t.pq.parquet'"),
        ("v.delta", "t.delta", "'t.delta/*.parquet'"),
        ("s3://lake/v.csv", "s3://lake/t.csv", "'t.s3.csv'"),
    ):
        done(desk, "tokenize", source, "--column", "name", "-o", tokens)
        Path("t.s3.csv").write_bytes(store.get("t.csv") if source.startswith("s3:") else b"")
        (counts,) = tables.sql(f"select count(*), count(distinct v.place) from 'p.csv' p join {rows} v using (name)").fetchall()
        assert counts == (joined, joined), source
        if Path(source).suffix in (".csv", ".jsonl", ".gz"):
            back = tokens.replace("t.", "b.", 1)
            done(desk, "detokenize", tokens, "--column", "name", "-o", back)
            same = store.get("b.csv") if source.startswith("s3:") else Path(back).read_bytes()
            given = store.get("v.csv") if source.startswith("s3:") else Path(source).read_bytes()
            assert (gzip.decompress(same) == gzip.decompress(given)) if back.endswith(".gz") else same == given, source


def test_lists_and_moves_in_place(desk: Desk, store: Store) -> None:
    for number in range(3):
        store.put(f"lake/{number}.csv", table("csv"))
    store.put("lake/none.csv", table("csv", [(None, "row")]))
    done(desk, "tokenize", "s3://lake/lake/*.csv", "--column", "name", "-o", "s3://lake/tok/")
    desk.rotate()
    moved = done(desk, "migrate", "s3://lake/tok/", "--in-place", "--crosswalk", "s3://lake/lists/cross.parquet")
    assert "3 files" in moved.stderr
    assert store.keys("lists") == ["lists/cross.parquet"]
    counted = json.loads(done(desk, "census", "s3://lake/tok/", "--json").stdout)
    assert len(counted["epochs"]) == 1
    assert counted["files"][0]["file"] == "s3://lake/tok/0.csv"
    assert left_here() == []
    store.put("who.csv", b"ssn,place\n123-45-6789,x\n")
    assert "quorumvault tokenize s3://lake/who.csv --column ssn" in done(desk, "suggest", "s3://lake/who.csv").stdout


def test_errors_are_one_line_and_tell_no_secret(desk: Desk, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("in.csv", table("csv"))
    cases = {
        ("s3://lake/none.csv", "out.csv"): "s3://lake/none.csv: there is no such object or folder",
        ("s3://lake/*.parquet", "out"): "no object matches s3://lake/*.parquet",
        ("s3://lake/in.csv", "s3://nobody/out.csv"): "there is no such object, or no such bucket (NoSuchBucket)",
        ("s3://lake/in.csv", "https://example.org/out.csv"): "https:// is read only",
        ("s3://AKIA:hush@lake/in.csv", "out.csv"): "has no credentials in it",
        ("s3://lake/in.csv?versionId=1", "out.csv"): "names a version",
        ("ftp://lake/in.csv", "out.csv"): "ftp:// is not known",
        ("http://lake/in.csv", "out.csv"): "http:// is not known",
        ("s3:///in.csv", "out.csv"): "names no bucket",
        ("https://example.org/folder/", "out.csv"): "https:// has no folders",
    }
    for (source, output), words in cases.items():
        result = quorumvault(desk, "tokenize", source, "--column", "name", "-o", output)
        assert result.exit_code in (1, 2), source
        assert words in result.stderr
        assert "hush" not in result.output
        assert "Traceback" not in result.output
    assert quorumvault(desk, "tokenize", "s3://lake/in.csv", "-o", "out.csv", "--work", ".").exit_code == 2
    packed = quorumvault(desk, "pack", ".", "--node", "n1", "-o", "s3://lake/n1.tar")
    assert packed.exit_code == 2
    assert "s3://lake/n1.tar is an object" in packed.stderr
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    object_store.forget()
    result = quorumvault(desk, "tokenize", "s3://lake/in.csv", "--column", "name", "-o", "out.csv")
    object_store.forget()
    assert "no credentials were found" in result.stderr


def test_without_the_extra_one_line_says_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    result = quorumvault(desk, "tokenize", "s3://lake/in.csv", "--column", "name", "-o", "out.csv")
    assert result.exit_code == 1
    assert result.stderr.strip() == "quorumvault: URLs of this kind need s3fs: pip install 'quorumvault[cloud]'"


def test_https_is_read_with_its_signature_which_nobody_is_told(desk: Desk, store: Store, tmp_path: Path) -> None:
    """In a process of its own, which must print nothing more as it exits."""
    (tmp_path / "served").mkdir()
    Path("served/in.csv.gz").write_bytes(gzip.compress(table("csv")))
    trusted = certificates.certificate(tmp_path / "ca.pem")
    environment = {"QUORUMVAULT_URL": desk.url, "QUORUMVAULT_API_KEY": key_text("admin"), "SSL_CERT_FILE": str(trusted)}
    with stores.web(tmp_path / "served") as (address, asked):
        signed = f"{address}/in.csv.gz?sig=hush%2Fhush"
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "quorumvault",
                "tokenize",
                signed,
                "--column",
                "name",
                "-o",
                "s3://lake/out.csv",
                "--rejects",
                "r.csv",
            ],
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert len(done.stderr.splitlines()) == 2, done.stderr
        assert "/in.csv.gz?sig=hush%2Fhush" in asked
        missing = quorumvault(desk, "tokenize", f"{address}/none.csv?sig=hush", "--column", "name", "-o", "x.csv")
    assert len(rows_of(store, "out.csv")) == len(ROWS)
    assert missing.exit_code in (1, 2)
    assert missing.stderr.startswith(f"quorumvault: {address}/none.csv: ")
    assert "hush" not in done.stdout + done.stderr + missing.output + Path("r.csv").read_text()
    assert "none.csv: the server cannot be reached: ClientConnectorCertificateError" in missing.stderr  # not trusted here


def test_a_web_server_that_is_away_is_no_file_that_is_not_there(desk: Desk, nobody: str) -> None:
    address = nobody.replace("http://", "https://")
    result = quorumvault(desk, "tokenize", f"{address}/in.csv?sig=hush", "--column", "name", "-o", "out.csv")
    assert (result.exit_code, os.listdir()) == (1, [])
    assert result.stderr.startswith(f"quorumvault: {address}/in.csv: the server cannot be reached")
    assert "hush" not in result.stderr


@pytest.mark.parametrize("mark", ["_delta_log/0.json", "metadata/00000-x.metadata.json", ".hoodie/hoodie.properties"])
def test_tables_of_lakes_are_no_folders_of_parquet(mark: str, desk: Desk, store: Store) -> None:
    store.put(f"sales/{mark}", b"{}")
    store.put("sales/day=1/part.csv", table("csv"))
    store.put("in.csv", table("csv"))
    for source, output in (
        ("s3://lake/sales/", "out"),
        ("s3://lake/sales/day=1/part.csv", "x.csv"),
        ("s3://lake/in.csv", "s3://lake/sales/x.csv"),
    ):
        result = quorumvault(desk, "tokenize", source, "--column", "name", "-o", output)
        assert result.exit_code == 2, result.stderr
        assert "s3://lake/sales is a table of" in result.stderr


def test_the_examples_of_the_page(desk: Desk, store: Store) -> None:
    """The examples of docs/files.md that need nothing but S3, typed as written, in their order."""
    section = (ROOT / "docs" / "files.md").read_text().partition("\n## Object stores\n")[2]
    examples = re.findall(r"^quorumvault (.*s3://.*)$", section.partition("\n## ")[0], re.MULTILINE)
    assert len(examples) == 3
    store.put("patients.csv.gz", gzip.compress(b"ssn\n123-45-6789\n"))
    tables.write(Path("in.parquet"), [("someone", "here")], ("patient", "place"))
    store.put("raw/day=1/part.parquet", Path("in.parquet").read_bytes())
    for example in examples:
        if example.startswith("migrate"):
            desk.rotate()
        done(desk, *shlex.split(example))
    assert store.keys() == [
        "1-to-2.parquet",
        "patients.csv.gz",
        "patients.tokens.csv.gz",
        "raw/day=1/part.parquet",
        "tokens/day=1/part.parquet",
    ]
