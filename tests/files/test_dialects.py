"""Text as other programs write it: delimiters, quotes, compression, encodings, nulls. The rest stays byte for byte."""

import gzip
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from click.testing import Result

from quorumvault.crypto.tokens import is_token
from tests.rigs.tables import PART_ROWS, Desk, job
from tests.rigs.vault import Rig

Run = Callable[..., Result]
PERSONS = ["AAA", "Bö", "CCC", "AAA", "Dé", "EEE", "FFF", "Gü", "HHH"]


@pytest.fixture
def rig() -> Rig:
    return Rig(fields=("$.name",))


def table(delimiter: str, end: str = "\n") -> str:
    rows = [["id", "name", "note"], *([str(at), name, "ä x"] for at, name in enumerate(PERSONS))]
    return "".join(delimiter.join(row) + end for row in rows)


def zstandard(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(content)
    return bytes(sink.getvalue())


def plain(name: str, content: bytes) -> bytes:
    if name.endswith(".gz"):
        return gzip.decompress(content)
    if name.endswith(".zst"):
        return bytes(pa.CompressedInputStream(pa.BufferReader(content), "zstd").read())
    return content


LINES = "".join(f'{{"id": {at}, "name": "{name}", "b\\u00e9": 1}}\n' for at, name in enumerate(PERSONS))
DIALECTS = {
    "tab": ("a.tsv", table("\t").encode(), ()),
    "pipe": ("a.psv", table("|").encode(), ()),
    "semicolon": ("a.csv", table(";", "\r\n").encode(), ("--delimiter", ";")),
    "other": ("a.csv", table("^").encode(), ("--delimiter", "^")),
    "quotes": ("a.tsv", b'id\t"name"\tnote\n1\t"A\tB"\t5\n2\t""\t"x"\n', ()),
    "no quotes": ("a.tsv", b'id\tname\tnote\n1\tA "B" c\t5"\n2\t"C\t"\n3\t\t"\n', ("--quoting", "none")),
    "gzip": ("a.csv.gz", gzip.compress(table(",").encode(), mtime=0), ()),
    "gzip of tabs": ("a.tsv.gz", gzip.compress(table("\t").encode(), mtime=0), ()),
    "gzip of records": ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0), ()),
    "zstd": ("a.csv.zst", zstandard(table(",").encode()), ()),
    "utf-8 with a mark": ("a.csv", b"\xef\xbb\xbf" + table(",").encode(), ()),
    "utf-16": ("a.csv", table(",", "\r\n").encode("utf-16"), ()),
    "utf-16 big-endian": ("a.tsv", b"\xfe\xff" + table("\t").encode("utf-16-be"), ()),
    "utf-16 without a mark": ("a.csv", table(",").encode("utf-16-be"), ("--encoding", "utf-16-be")),
    "utf-16 records": ("a.jsonl", LINES.encode("utf-16"), ()),
    "latin-1": ("a.csv", table(";").encode("latin-1"), ("--encoding", "latin-1", "--delimiter", "semicolon")),
    "windows-1252, gzip": (
        "a.csv.gz",
        gzip.compress(table(",").replace("x", "€").encode("cp1252"), mtime=0),
        ("--encoding", "windows-1252"),
    ),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_file_comes_back_byte_for_byte(dialect: str, run: Run) -> None:
    name, content, options = DIALECTS[dialect]
    Path(name).write_bytes(content)
    tokenized = run("tokenize", name, *options, "--column", "name", "-o", f"tokens-{name}")
    assert tokenized.exit_code == 0, tokenized.stderr
    tokens = plain(name, Path(f"tokens-{name}").read_bytes())
    assert b"qv_1_" in tokens.replace(b"\0", b"")
    back = run("detokenize", f"tokens-{name}", *options, "--column", "name", "-o", name, "--force")
    assert back.exit_code == 0, back.stderr
    assert plain(name, Path(name).read_bytes()) == plain(name, content)
    streamed = run("tokenize", name, *options, "--column", "name")
    assert streamed.stdout_bytes == tokens, streamed.stderr


def test_the_same_names_have_the_same_tokens_in_all_of_them(run: Run) -> None:
    same = ["tab", "pipe", "gzip", "zstd", "utf-16", "utf-16 big-endian"]
    for dialect in same:
        name, content, _options = DIALECTS[dialect]
        Path("in").mkdir(exist_ok=True)
        Path("in", f"{dialect}.{name[2:]}").write_bytes(content)
    assert run("tokenize", "in", "--column", "name", "-o", "out").exit_code == 0
    found = [sorted(path.name for path in Path(folder).iterdir()) for folder in ("in", "out")]
    assert found[0] == found[1]
    assert run("detokenize", "out", "--column", "name", "-o", "back").exit_code == 0
    for path in Path("in").iterdir():
        assert plain(path.name, Path("back", path.name).read_bytes()) == plain(path.name, path.read_bytes())
    tabs = Path("out/tab.tsv").read_text().splitlines()
    assert Path("out/pipe.psv").read_text().splitlines() == [line.replace("\t", "|") for line in tabs]
    assert plain("a.gz", Path("out/gzip.csv.gz").read_bytes()).decode().splitlines() == [line.replace("\t", ",") for line in tabs]
    assert Path("out/utf-16.csv").read_bytes().decode("utf-16").splitlines() == [line.replace("\t", ",") for line in tabs]
    with duckdb.connect() as con:
        joined = con.sql(
            "select count(*) from 'out/tab.tsv' join 'out/gzip.csv.gz' using (name) join read_csv('out/pipe.psv') using (name)"
        )
        assert joined.fetchall() == [(len(PERSONS) - 2 + 2**3,)]


def test_the_output_is_compressed_as_its_name_says(run: Run) -> None:
    Path("a.csv").write_bytes(table(",").encode())
    for name in ("b.csv.gz", "b.csv.zst"):
        assert run("tokenize", "a.csv", "--column", "name", "-o", name).exit_code == 0
        assert run("detokenize", name, "--column", "name").stdout_bytes == Path("a.csv").read_bytes()
    assert run("tokenize", "--format", "csv", "--column", "name", "-o", "c.csv.gz", stdin=table(",").encode()).exit_code == 0
    assert gzip.decompress(Path("c.csv.gz").read_bytes()) == gzip.decompress(Path("b.csv.gz").read_bytes())


@pytest.mark.parametrize(
    ("name", "content", "options", "code", "words"),
    [
        ("a.csv", b"id;name\n1;A\n", (), 2, "its columns: 'id;name'. If ';' parts its columns, say --delimiter ';'"),
        ("a.csv", b"id\tname\n1\tA\n", (), 2, "say --delimiter tab"),
        ("a.csv", b'id,name\n1,5" x\n', (), 1, "line 2: has a quote where none may be"),
        ("a.csv", b"id,name\n1,A\xe4\n", (), 1, "line 2: is not UTF-8"),
        ("a.csv", b"id,name\n1,A\n2,\x81\n", ("--encoding", "windows-1252"), 1, "line 3: is no text in cp1252"),
        ("a.csv", "id,name\n1,A\n2,B".encode("utf-16") + b"\0", (), 1, "line 3: is no text in utf-16-le"),
        (
            "a.csv.gz",
            gzip.compress(table(",").encode(), mtime=0)[:-9],
            (),
            1,
            "a.csv.gz is damaged or cut off: it is no whole gzip file",
        ),
        ("a.csv.gz", b"id,name\n1,A\n", (), 1, "a.csv.gz is damaged or cut off"),
        ("a.csv.zst", b"id,name\n1,A\n", (), 1, "a.csv.zst is damaged or cut off"),
        ("a.csv", b"name\nA\n", ("--delimiter", "ab"), 2, "--delimiter: expected one character"),
        ("a.csv", b"name\nA\n", ("--delimiter", '"'), 2, "--delimiter: expected one character"),
    ],
)
def test_what_is_not_as_it_is_called_is_refused(
    name: str, content: bytes, options: tuple[str, ...], code: int, words: str, run: Run
) -> None:
    Path(name).write_bytes(content)
    for output in ("-", "out.csv"):
        result = run("tokenize", name, *options, "--column", "name", "-o", output)
        assert (result.exit_code, result.stdout) == (code, ""), result.stderr
        assert words in result.stderr
        assert not Path("out.csv").exists()


def test_a_value_that_cannot_be_written_ends_the_run_with_its_line(run: Run) -> None:
    Path("a.csv").write_text("name\nx\ny\n日本\n")
    run("tokenize", "a.csv", "-o", "t.csv")
    Path("b.csv").write_text('name\n"a,b"\n')
    run("tokenize", "b.csv", "-o", "u.csv")
    Path("u.csv").write_text(Path("u.csv").read_text().replace('"', ""))
    for name, options, words in (
        ("t.csv", ("--encoding", "latin-1"), "line 4: a value that comes back has a character that latin-1 does not have"),
        ("u.csv", ("--quoting", "none"), "line 2: name: a value with a delimiter or a line end in it"),
    ):
        for output in ("-", "out.csv"):
            result = run("detokenize", name, *options, "-o", output)
            assert (result.exit_code, result.stdout) == (1, "")
            assert words in result.stderr
            assert not Path("out.csv").exists()


NULLS = b'"id","name"\n"1",""\n"2",""\n"3","NULL"\n"4",\\N\n"5",NA\n"6",\n"7",A\n'


def test_spellings_of_null_stay_as_they_are_and_those_that_nobody_named_are_warned_of(run: Run) -> None:
    told = run("tokenize", "--format", "csv", stdin=NULLS).stderr.splitlines()
    assert told[1].startswith("warning: name has cells that say nothing in quotes (2), NULL (1), \\N (1), NA (1), and all that")
    assert told[1].endswith("if they are nulls: --null '' --null NULL --null '\\N' --null NA")
    result = run("tokenize", "--format", "csv", *["--null", "NULL", "--null", "\\N", "--null", "NA"], "--null", "", stdin=NULLS)
    before, after = (text.splitlines() for text in (NULLS, result.stdout_bytes))
    assert (after[:-1], is_token(after[-1].decode().split(",")[1])) == (before[:-1], True)
    assert "warning" not in result.stderr
    records = b'{"name": "NA"}\n{"name": "-"}\n'
    result = run("tokenize", "--format", "jsonl", "--null", "NA", stdin=records)
    assert result.stdout_bytes.splitlines()[0] == records.splitlines()[0]
    assert "warning: $.name has cells that say - (1), and all that" in result.stderr


def test_one_in_a_thousand_is_no_reason_to_warn(run: Run) -> None:
    for count, warns in ((999, False), (998, True)):
        rows = "".join(f"{at}\n" for at in range(count))
        assert ("warning" in run("tokenize", "--format", "csv", stdin=f"name\nNA\n{rows}".encode()).stderr) == warns


@pytest.mark.parametrize("option", [("--delimiter", ";"), ("--quoting", "none"), ("--encoding", "latin-1")])
def test_dialects_are_of_text_files(option: tuple[str, ...], run: Run) -> None:
    duckdb.sql("copy (select 'x' as name) to 'a.parquet'")
    result = run("tokenize", "a.parquet", "-o", "b.parquet", *option)
    assert (result.exit_code, "are for text files" in result.stderr) == (2, True)


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.zst", "a.csv"])
def test_what_cannot_seek_is_cut_into_parts_and_gone_on_with(name: str, desk: Desk, tmp_path: Path) -> None:
    whole = table(",")
    content = {"a.csv.gz": gzip.compress(whole.encode()), "a.csv.zst": zstandard(whole.encode()), "a.csv": whole.encode("utf-16")}
    (tmp_path / name).write_bytes(content[name])
    asked = job(tmp_path / name, tmp_path / "out.csv")
    done = desk.run(asked)
    assert done.parts_done == -(-len(PERSONS) // PART_ROWS)
    back = tmp_path / name.replace("a", "back", 1)
    desk.run(job(tmp_path / "out.csv", back, "detokenize"))
    assert plain(name, back.read_bytes()) == plain(name, content[name])
