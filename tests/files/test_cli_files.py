"""``tokenize`` and ``detokenize`` on files, through the command and over sockets, against the real API."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from chaos.testbed.cluster import environment
from quorumvault.cli import main
from quorumvault.config.limits import Limits
from quorumvault.crypto.tokens import format_token, is_token
from quorumvault.errors import NoQuorum
from quorumvault.files.text import rows
from tests.rigs.served import no_waiting
from tests.rigs.vault import CLINIC, Rig, key_text

pytestmark = pytest.mark.slow

PATIENTS = (
    b'\xef\xbb\xbfid,ssn,"given name",note,zip\r\n'
    b'1,123-45-6789,"Ann","she said ""hi""\n and left",02139\r\n'
    b'2,"123-45-6789",,"", 00501 \r\n'
    b'3,,"","a,b",02139\r\n'
    b"\r\n"
    b"4,999-99-9999,Zo\xc3\xab,,"
)
FIELDS = ("$.ssn", "$['given name']", "$.contacts[*].phone")


@pytest.fixture
def rig() -> Rig:
    return Rig(fields=FIELDS)


Run = Callable[..., Result]


def cells(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def test_csv_there_and_back_is_byte_for_byte_the_same(run: Run) -> None:
    Path("patients.csv").write_bytes(PATIENTS)
    result = run("tokenize", "patients.csv", "--column", "ssn,given name,note,zip", "-o", "tokens.csv")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    told = result.stderr.splitlines()
    assert told[0] == "4 rows; values that became tokens: ssn 3, given name 3, note 3, zip 3; epoch 1; 9 look-ups"
    assert told[-1] == "left as they are: id"
    rows = cells(Path("tokens.csv").read_bytes())
    assert [row[0] for row in rows if row] == ["id", "1", "2", "3", "4"]
    assert rows[1][1] == rows[2][1]
    assert all(is_token(cell) for cell in rows[1][1:])
    result = run("detokenize", "tokens.csv", "--column", "ssn,given name", "--column", "note,zip", "-o", "back.csv")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == "4 rows; values that came back: ssn 3, given name 3, note 3, zip 3; 9 look-ups\n"
    assert Path("back.csv").read_bytes() == PATIENTS
    assert sorted(path.name for path in Path().iterdir()) == ["back.csv", "patients.csv", "tokens.csv"]


def test_tokens_move_to_the_active_epoch_and_still_stand_for_the_same_values(run: Run) -> None:
    Path("patients.csv").write_bytes(PATIENTS)
    run("tokenize", "patients.csv", "--column", "ssn,note", "-o", "old.csv")
    assert run("rotate", "--from", "1").exit_code == 0
    moved = run("retokenize", "old.csv", "--column", "ssn,note,zip", "-o", "new.csv")
    told = "4 rows; tokens that were moved: ssn 3, note 3, zip 0; epoch 2; 3 cells without a token; 5 look-ups\n"
    assert (moved.exit_code, moved.stderr) == (0, told)
    assert all(row[1].startswith("qv_2_") for row in cells(Path("new.csv").read_bytes())[1:] if row and row[1])
    run("detokenize", "new.csv", "--column", "ssn,note", "-o", "back.csv")
    assert Path("back.csv").read_bytes() == PATIENTS


def test_csv_of_the_configured_fields_through_standard_streams(run: Run) -> None:
    tokenized = run("tokenize", "--format", "csv", stdin=PATIENTS)
    told = ["4 rows; values that became tokens: ssn 3, given name 3; epoch 1; 5 look-ups", "left as they are: id, note, zip"]
    lines = tokenized.stderr.splitlines()
    assert (tokenized.exit_code, [lines[0], lines[-1]]) == (0, told)
    assert lines[1].startswith("warning: given name has cells that say nothing in quotes (1), ")
    assert b'she said ""hi""\n and left",02139\r\n' in tokenized.stdout_bytes
    back = run("detokenize", "-", "--format", "csv", stdin=tokenized.stdout_bytes)
    assert (back.exit_code, back.stdout_bytes) == (0, PATIENTS)


RECORDS = (
    b'{"ssn": "123-45-6789", "lab": 1.10, "contacts": [{"phone": "1", "of": 1e400}, {"phone": null}]}\n'
    b'{"ssn": 12345678901234567890123, "note": "\\u00e4"}\r\n'
    b'{"ssn": null}'
)


def test_json_lines_there_and_back_keep_types_and_spelling(run: Run) -> None:
    Path("records.jsonl").write_bytes(RECORDS)
    tokenized = run("tokenize", "records.jsonl", "--typed")
    assert tokenized.exit_code == 0, tokenized.stderr
    assert "3 rows; values that became tokens: $.ssn 2, $['given name'] 0, $.contacts[*].phone 1; epoch 1" in tokenized.stderr
    assert b'"lab": 1.10' in tokenized.stdout_bytes
    first, second, _ = map(json.loads, tokenized.stdout.splitlines())
    assert all(map(is_token, (first["ssn"], first["contacts"][0]["phone"], second["ssn"])))
    back = run("detokenize", "--format", "jsonl", stdin=tokenized.stdout_bytes)
    assert (back.exit_code, back.stdout_bytes) == (0, RECORDS)


def test_the_summary_for_machines(run: Run) -> None:
    Path("a.csv").write_bytes(b"ssn\nx\ny\n")
    result = run("tokenize", "a.csv", "-o", "b.csv", "--json")
    none = ["kept_tokens", "no_token", "not_found", "unavailable", "collision", "rejected", "there", "parts_kept"]
    nothing = dict.fromkeys(none, 0)
    done = {"values": {"ssn": 2}, "rows": 2, "files": 1, "look_ups": 2, "left": [], "like_nulls": {}, "damaged": {}, **nothing}
    assert json.loads(result.stdout) == done | {"epochs": [1], "parts_done": 1}
    result = run("detokenize", "b.csv", "--json")
    assert result.stdout_bytes == b"ssn\nx\ny\n"
    assert json.loads(result.stderr) == done | {"epochs": [], "parts_done": 0}


CSV, JSONL = ("--format", "csv"), ("--format", "jsonl")
NAMES = "'id', 'ssn', 'given name', 'note', 'zip'"
MISTYPED = "qv_1_" + "0" * 48
LARGE = "x" * (Limits().value_bytes + 1)
TOKEN = format_token(1, bytes(20)).encode()


@pytest.mark.parametrize(
    ("command", "stdin", "code", "stdout", "words"),
    [
        # A missing column is an error before anything else happens.
        (("tokenize", *CSV, "--column", "SSN"), PATIENTS, 2, b"", f"no column 'SSN'; its columns: {NAMES}"),
        (("tokenize", *CSV), b"a,b\n1,2\n", 2, b"", "none of the configured fields"),
        (("tokenize", *CSV, "--column", "ssn"), b"ssn,ssn\n1,2\n", 2, b"", "more than one column 'ssn'"),
        (("tokenize", *CSV, "--column", ""), PATIENTS, 2, b"", "--column: expected names"),
        (("tokenize", *JSONL, "--column", "b"), b'{"a": 1}\n', 2, b"", "no record of standard input has b"),
        (("tokenize", *JSONL), b'{"a": 1}\n', 2, b"", "has any of the configured fields"),
        (("tokenize",), PATIENTS, 2, b"", "--format csv or --format jsonl"),
        # A table without rows is a success.
        (("tokenize", *CSV), b"ssn\n", 0, b"ssn\n", "0 rows; "),
        (("tokenize", *JSONL), b"", 0, b"", "0 rows; "),
        (("tokenize", *JSONL), b"\n\n", 0, b"\n\n", "0 rows; "),
        # Text that is no token is kept and never sent.
        (("detokenize", *CSV), f'ssn\n123-45-6789\n{MISTYPED}\n""\n'.encode(), 0, None, "3 cells without a token"),
    ],
)
def test_what_is_settled_without_asking(
    run: Run, rig: Rig, command: tuple[str, ...], stdin: bytes, code: int, stdout: bytes | None, words: str
) -> None:
    result = run(*command, stdin=stdin)
    assert (result.exit_code, result.stdout_bytes, rig.vault.asked) == (code, stdin if stdout is None else stdout, [])
    assert words in result.stderr


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "words"),
    [
        ((*CSV, "--column", '"last, first",b'), b'"last, first",b\nx,y\n', 0, "last, first 1, b 1"),
        (CSV, f"a,ssn\n1,fine\n2,fine\n3,{LARGE}\n".encode(), 1, "standard input: line 4: ssn: "),
        (CSV, b"ssn\ny\n%b\n" % TOKEN, 1, "line 3: ssn: there is a token already"),
        ((*CSV, "--if-token", "keep"), b"ssn\ny\n%b\n" % TOKEN, 0, "ssn 1; epoch 1; 1 cells had tokens already"),
        (JSONL, b'{"ssn": "a"}\n{"ssn": 1.5}\n', 1, "standard input: line 2: $.ssn: "),
    ],
)
def test_what_the_vault_refuses_is_named_by_line_and_column(
    run: Run, arguments: tuple[str, ...], stdin: bytes, code: int, words: str
) -> None:
    result = run("tokenize", *arguments, stdin=stdin)
    assert result.exit_code == code
    assert words in result.stderr
    assert (TOKEN in result.stdout_bytes) == ("keep" in arguments)
    assert not any(value in result.stderr for value in ("xx", "1.5", TOKEN.decode()))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere.csv",), "nowhere.csv: there is no such file or folder"),
        (("patients.txt",), "patients.txt: say which format it is"),
        (("-",), "--format csv or --format jsonl"),
        (("nowhere.xyz",), "nowhere.xyz: there is no such file or folder"),
        (("nowhere.json", "--column", "a"), "nowhere.json: there is no such file or folder"),
        (("a.csv.bz2",), "a.csv.bz2: unpack it first"),
        (("a.csv", "--table", "t"), "only a DuckDB file has tables"),
        (("-", *CSV, "--table", "t"), "only a DuckDB file has tables"),
        (("a.duckdb::t",), "a.duckdb::t: a DuckDB table goes to a file: say -o FILE.duckdb::TABLE or -o FILE.parquet"),
        (("a.duckdb::t", "-o", "c.duckdb::information_schema.t"), "no table can be made in the schema information_schema"),
        (("a.duckdb::t", "-o", "c.duckdb::PG_CATALOG.t"), "no table can be made in the schema pg_catalog"),
        (("a.csv", "-o", "c.parquet"), "c.parquet: the output is CSV, and its name says .parquet"),
        (("a.csv", "-o", "c.jsonl.gz"), "the output is CSV, and its name says .jsonl"),
        (("a.csv", "-o", "c.csv.bz2"), "the output is CSV, and its name says .bz2"),
        (("-", *CSV, "-o", "c.duckdb"), "the output is CSV, and its name says .duckdb"),
        (("a.csv", "b.csv"), "several files go into a folder: -o DIR"),
        (("*.csv",), "several files go into a folder: -o DIR"),
        (("a.csv", "--resume"), "are for files: name an input and -o FILE"),
        (("a.csv", "-o", "c.csv", "--typed"), "--typed is for JSON Lines"),
        (("a.csv", "--typed"), "--typed is for JSON Lines"),
        (("a.csv", "-o", "c.csv", "--rejects", "r.txt"), "--rejects: name a .csv or a .jsonl file"),
        (("a.csv", "-o", "c.csv", "--rejects", "b.csv"), "b.csv exists"),
        (("a.csv", "-o", "b.csv"), "b.csv exists"),
        (("a.parquet",), "a.parquet: Parquet goes to a file: say -o FILE.parquet"),
        (("-", "--format", "parquet"), "standard input: Parquet goes from a file to a file"),
        (("a.parquet", "-o", "c.csv"), "the output of a.parquet is a .parquet file: c.csv is none"),
        (("a.duckdb", "-o", "c.duckdb"), "say which table"),
        # An output is never the input or another output, even with --force. A device is not replaced by a file.
        (("a.csv", "-o", "a.csv", "--force"), "the output is the input"),
        (("a.csv", "-o", "./a.csv", "--force"), "the output is the input"),
        (("a.csv", "-o", "link.csv", "--force"), "the output is the input"),
        (("a.csv", "-o", "pipe", "--force"), "no regular file"),
        # A mistyped path creates no folder.
        (("a.csv", "-o", "no/such/c.csv"), "there is no folder"),
        (("a.csv", "-o", "c.csv", "--rejects", "no/bad.csv"), "there is no folder"),
        (("a.csv", "b.csv", "-o", "no/such"), "there is no folder"),
        (("a.csv", "-o", "c.csv", "--force", "--rejects", "./c.csv"), "name another"),
        (("a.csv", "-o", "c.csv", "--force", "--rejects", "a.csv"), "name another"),
        (("a.csv", "--force", "--rejects", "a.csv"), "name another"),
        (("-", *CSV, "-o", "c.csv", "--force", "--rejects", "./c.csv"), "name another"),
    ],
)
def test_what_cannot_be_meant_is_a_mistake_and_nothing_happens(
    run: Run, rig: Rig, arguments: tuple[str, ...], words: str
) -> None:
    for name in ("a.csv", "b.csv", "a.csv.bz2", "a.parquet", "a.duckdb", "patients.txt"):
        Path(name).write_bytes(b"ssn\nx\n")
    Path("link.csv").symlink_to("a.csv")
    os.mkfifo("pipe")
    before = {path.name for path in Path().iterdir()}
    result = run("tokenize", *arguments, stdin=b"ssn\nx\n")
    assert (result.exit_code, rig.vault.asked) == (2, []), result.stderr
    assert words in result.stderr
    assert {path.name for path in Path().iterdir()} == before
    assert all(Path(name).read_bytes() == b"ssn\nx\n" for name in before - {"pipe"})


def test_a_file_that_fails_on_the_way_leaves_nothing_behind(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BATCH_ROWS", 2)
    Path("a.csv").write_bytes(b"ssn,x\n1,\n2,\n3,\n4,5,6\n")
    result = run("tokenize", "a.csv", "-o", "b.csv")
    assert result.exit_code == 1
    assert "a.csv: line 5: has 3 cells, and the header has 2" in result.stderr
    assert [path.name for path in Path().iterdir()] == ["a.csv"]


@pytest.mark.parametrize("missing", ["keep", "null", "error"])
def test_a_token_without_a_value(run: Run, rig: Rig, missing: str) -> None:
    token = rig.tokens(["somebody else's"], key="lab")[0]
    content = f"a,ssn\n1,{token}\n".encode()
    result = run("detokenize", "--format", "csv", "--missing", missing, stdin=content)
    done = {"keep": (4, content), "null": (4, b"a,ssn\n1,\n"), "error": (1, b"")}
    assert (result.exit_code, result.stdout_bytes) == done[missing]
    told = "line 2: ssn: no value of yours has this token" if missing == "error" else "1 tokens not found"
    assert told in result.stderr
    assert token not in result.stderr
    moved = run("retokenize", "--format", "csv", "--column", "ssn", stdin=content)
    assert (moved.exit_code, moved.stdout_bytes) == (4, content)
    assert "epoch unknown: no token was written; 1 tokens not found; 1 look-ups" in moved.stderr


def test_what_could_not_be_told_is_counted_and_kept(run: Run, rig: Rig) -> None:
    tokens = rig.tokens(["a", "b", "c"])
    rig.vault.unavailable.add(tokens[0])
    rig.vault.collided.add(tokens[1])
    result = run("detokenize", "--format", "csv", stdin=("ssn\n" + "\n".join(tokens)).encode())
    assert result.exit_code == 4
    assert result.stdout.splitlines() == ["ssn", *tokens[:2], "c"]
    assert "1 tokens could not be told, ask again; 1 tokens in which two values met" in result.stderr


def test_a_rotation_on_the_way_is_told(run: Run, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BATCH_ROWS", 2)
    original = rig.vault.tokenize

    async def rotate_after(owner: object, canonicals: object) -> object:
        done = await original(owner, canonicals)  # type: ignore[arg-type]
        await rig.vault.rotate(CLINIC, 1)
        return done

    monkeypatch.setattr(rig.vault, "tokenize", rotate_after)
    content = b"ssn,n\n" + b"".join(b"%d,%d\n" % (number % 7, number) for number in range(50))
    result = run("tokenize", "--format", "csv", stdin=content)
    assert result.exit_code == 0
    assert "epoch 1, 2" in result.stderr
    assert "rotated meanwhile" in result.stderr
    assert run("detokenize", "--format", "csv", stdin=result.stdout_bytes).stdout_bytes == content


def test_batches_are_bounded_in_bytes(run: Run, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BATCH_SIZE", 10)
    assert run("tokenize", "--format", "csv", stdin=b"ssn\naaaa\nbbbb\ncccc\n").exit_code == 0
    assert sorted(len(values) for operation, values in rig.vault.asked if operation == "tokenize") == [1, 2]


def test_folders_keep_their_paths_and_rejects_are_listed(run: Run) -> None:
    token = json.loads(run("tokenize", "--format", "jsonl", stdin=b'{"ssn":"x"}').stdout)["ssn"]
    for folder in ("in/a=1", "in/b=2"):
        Path(folder).mkdir(parents=True)
        Path(folder, "x.csv").write_text(f"ssn,n\nx,1\n\n{token},2\n")
    result = run("tokenize", "in", "-o", "out", "--rejects", "r.csv")
    told = (
        "2 files, 4 rows; values that became tokens: ssn 2; epoch 1; 2 cells listed as rejects; 1 look-ups\nleft as they are: n\n"
    )
    assert (result.exit_code, result.stderr) == (4, told)
    assert Path("out/b=2/x.csv").read_text() == f"ssn,n\n{token},1\n\n,2\n"
    listed = "".join(f"in/{name}/x.csv,2,ssn,already-tokenized\n" for name in ("a=1", "b=2"))
    assert Path("r.csv").read_text() == "file,row,column,code\n" + listed
    streamed = run("tokenize", "in/a=1/x.csv", "--rejects", "r.jsonl")
    assert (streamed.exit_code, streamed.stdout) == (4, f"ssn,n\n{token},1\n\n,2\n")
    assert Path("r.jsonl").read_text() == '{"file":"in/a=1/x.csv","row":2,"column":"ssn","code":"already-tokenized"}\n'


def test_values_that_cannot_be_tokenized_are_rejects_too(run: Run) -> None:
    Path("a.jsonl").write_text("".join(json.dumps({"ssn": value}) + "\n" for value in ("a", 1.5, [1], LARGE, 7)))
    result = run("tokenize", "a.jsonl", "-o", "b.jsonl", "--rejects", "r.jsonl", "--column", "ssn", "--typed")
    assert result.exit_code == 4, result.stderr
    found = [json.loads(line)["ssn"] for line in Path("b.jsonl").read_text().splitlines()]
    assert [cell is None for cell in found] == [False, True, True, True, False]
    codes = [(entry["row"], entry["code"]) for entry in map(json.loads, Path("r.jsonl").read_text().splitlines())]
    assert codes == [(2, "not-tokenizable"), (3, "not-tokenizable"), (4, "value-too-large")]
    Path("bad.jsonl").write_text('{"ssn":1.5}\n{"ssn":2.5}\n{"ssn":1.5}\n')
    for more in ("-o", "none.jsonl"), ():
        result = run("tokenize", "bad.jsonl", *more, "--rejects", "all.jsonl", "--column", "ssn", "--json", "--force")
        assert json.loads(result.stdout if more else result.stderr)["look_ups"] == 0


def test_text_needs_no_extra_and_parquet_says_which(run: Run, url: str) -> None:
    Path("a.csv").write_bytes(b"ssn\nx\n")
    Path("a.parquet").touch()
    program = (
        "import sys\n"
        "for name in ('duckdb', 'numpy', 'pyarrow'): sys.modules[name] = None\n"
        "from quorumvault.cli import main\n"
        "main(sys.argv[1:])"
    )
    variables = environment(QUORUMVAULT_URL=url, QUORUMVAULT_API_KEY=key_text("clinic"))
    for name, code, words in (
        ("a.csv", 0, "1 rows; values that became tokens: ssn 1; epoch 1; 1 look-ups\n"),
        ("a.parquet", 1, "quorumvault: Parquet and DuckDB need duckdb: pip install 'quorumvault[analytics]'\n"),
    ):
        command = [sys.executable, "-c", program, "tokenize", name, "--column", "ssn", "-o", f"out{Path(name).suffix}"]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (code, words)
    assert sorted(path.name for path in Path().iterdir()) == ["a.csv", "a.parquet", "out.csv"]


@pytest.mark.parametrize(
    ("key", "arguments", "file", "code", "words"),
    [
        ("unknown", ("--key-file", "key"), key_text("clinic") + "\n", 0, ""),
        ("unknown", (), "", 1, ""),
        (None, (), "", 1, "QUORUMVAULT_API_KEY"),
        (key_text("reader"), ("--column", "ssn"), "", 1, ""),
        (key_text("clinic"), ("--purpose", "two words"), "", 2, ""),
        (key_text("clinic"), ("--key-file", "key"), "two keys\n", 1, "expected one API key"),
        (key_text("clinic"), ("--key-file", "absent"), "", 1, ""),
    ],
)
def test_exit_codes_for_what_goes_wrong_over_there(
    environment: dict[str, str], key: str | None, arguments: tuple[str, ...], file: str, code: int, words: str
) -> None:
    Path("key").write_text(file)
    variables = environment | {"QUORUMVAULT_API_KEY": key}
    result = CliRunner().invoke(main, ["tokenize", "--format", "csv", *arguments], input=b"ssn\nx\n", env=variables)
    assert result.exit_code == code
    assert words in result.stderr
    assert "qvk_" not in result.stderr


def test_a_vault_without_a_quorum_is_exit_3_and_no_file(rig: Rig, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    no_waiting(monkeypatch)
    rig.vault.failure = NoQuorum("two nodes are away", outcome="unknown")
    Path("a.csv").write_bytes(b"ssn\nx\n")
    result = run("tokenize", "a.csv", "-o", "b.csv")
    assert (result.exit_code, "two nodes are away" in result.stderr) == (3, True)
    assert [path.name for path in Path().iterdir()] == ["a.csv"]


def test_a_run_that_finds_nothing_to_resume_says_so_and_begins(run: Run) -> None:
    """A scheduler passes --resume every time; a person who expected finished parts has to be told that there are none."""
    Path("a.csv").write_bytes(b"ssn\nx\n")
    begun = run("tokenize", "a.csv", "-o", "b.csv", "--resume")
    first, _ = begun.stderr.splitlines()
    assert first == f"There is no unfinished run to go on with ({Path.cwd()}/.b.csv.quorumvault): this one begins."
    assert (begun.exit_code, Path("b.csv").read_bytes()[:9]) == (0, b"ssn\nqv_1_")
