"""The command with streams, pipes and names as a job runner passes them: real processes, which share one vault."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.testbed.cluster import environment, executable
from quorumvault.testing.serving import served
from tests.rigs.vault import Rig, key_text

pytestmark = pytest.mark.slow

ROWS = "id,ssn\n1,AAA\n"
TOKENIZE = "quorumvault tokenize in.csv --column ssn"


@pytest.fixture(scope="module")
def variables() -> Iterator[dict[str, str]]:
    with served(Rig().app) as url:
        path = f"{Path(executable()).parent}:{os.environ['PATH']}"
        yield environment(QUORUMVAULT_URL=url, QUORUMVAULT_API_KEY=key_text("admin"), PATH=path)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "in.csv").write_text(ROWS)
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def shell(place: Path, variables: dict[str, str], script: str) -> tuple[int, list[bytes], bytes]:
    """The exit code of a script, its lines on standard error, and its standard output."""
    done = subprocess.run(["bash", "-c", script], cwd=place, env=variables, capture_output=True, timeout=60, check=False)
    return done.returncode, done.stderr.splitlines(), done.stdout


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("quorumvault tokenize --format csv --column ssn <&-", b"standard input: it is closed"),
        ("quorumvault tokenize --format csv --column ssn 0>into", b"standard input: Bad file descriptor"),
        (f"{TOKENIZE} >&-", b"standard output: it is closed"),
        (f"{TOKENIZE} >/dev/full", b"standard output: No space left on device"),
        (f"{TOKENIZE} >>in.csv", b"in.csv: it is the input, and standard output goes to it"),
        (
            "quorumvault tokenize --format csv --column ssn <in.csv >>in.csv",
            b"standard input: it is the input, and standard output goes to it",
        ),
    ],
)
def test_a_stream_that_cannot_be_used_is_one_line(script: str, words: bytes, place: Path, variables: dict[str, str]) -> None:
    assert shell(place, variables, script)[:2] == (2, [b"quorumvault: " + words])
    assert (place / "in.csv").read_text() == ROWS


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_work_that_needs_no_stream_is_done_without(closed: str, place: Path, variables: dict[str, str]) -> None:
    """It also proves that no message is written to a file that got the number of a closed stream."""
    assert shell(place, variables, f"{TOKENIZE} -o out.csv {closed}")[0] == 0
    assert (place / "out.csv").read_text().startswith("id,ssn\n1,qv_1_")
    assert (place / "out.csv").read_text().count("\n") == 2


@pytest.mark.parametrize(
    "given",
    [
        "quorumvault tokenize <(cat in.csv) --format csv --column ssn",
        "(cat in.csv >pipe &); quorumvault tokenize pipe --format csv --column ssn",
        "quorumvault tokenize /dev/stdin --format csv --column ssn <<<'id,ssn\n1,AAA'",
    ],
)
def test_what_can_be_read_is_read(given: str, place: Path, variables: dict[str, str]) -> None:
    code, err, out = shell(
        place, variables, f"exec >all; echo first; {given} -o /dev/stdout --force; code=$?; echo last; exit $code"
    )
    assert (code, len(err), out) == (0, 2, b"")  # what was done, and which columns are left as they are
    lines = (place / "all").read_text().splitlines()  # the file was not replaced while others write to it
    assert [lines[0], lines[1], lines[2][:7], lines[3]] == ["first", "id,ssn", "1,qv_1_", "last"]


def test_a_reader_that_has_enough_ends_the_command_without_a_word(place: Path, variables: dict[str, str]) -> None:
    (place / "in.csv").write_text("id,ssn\n" + "1,AAA\n" * 30_000)
    code, err, out = shell(place, variables, f"{TOKENIZE} | head -1; exit ${{PIPESTATUS[0]}}")
    assert (code, err, out) == (141, [], b"id,ssn\n")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (f"{TOKENIZE} --column $'gr\\xf6' -o out.csv", b"'gr\\xf6' is no UTF-8"),
        ("quorumvault tokenize $'a.duckdb::\\xf6' --column ssn -o out.parquet", b"names of tables are UTF-8"),
        ("cp in.csv $'\\xf6.parquet'; quorumvault tokenize $'\\xf6.parquet' --column a -o b.parquet", b"\\xf6.parquet: Parquet"),
        ("quorumvault tokenize --format csv --column ssn --rejects in.csv --force <in.csv", b"--rejects in.csv: it is the input"),
        (f"{TOKENIZE} --rejects out.csv --force >out.csv", b"--rejects out.csv: it is the input, or the output"),
        (f"{TOKENIZE} --column $'a\\nb' -o out.csv", b"--column: quote a name with a line end in it"),
        (f"{TOKENIZE} --keep $'a\\rb' -o out.csv", b"--keep: quote a name with a line end in it"),
        (f"{TOKENIZE} -o /dev/stderr", b"is a file that is open"),
        ("quorumvault tokenize in.csv <(true) --format csv --column ssn -o out", b"name no other file"),
        ("quorumvault migrate <(cat in.csv) --format csv -o out", b"is no regular file"),
    ],
)
def test_what_cannot_be_meant_leaves_nothing(script: str, words: bytes, place: Path, variables: dict[str, str]) -> None:
    code, err, _ = shell(place, variables, script)
    assert code == 2
    assert words in err[0]
    assert len(err) == 2  # the second line says where to find help
    assert not [path for path in place.iterdir() if path.name.startswith(("out", ".out")) and path.stat().st_size]
    assert (place / "in.csv").read_text() == ROWS


def test_a_file_with_any_name_and_a_column_in_any_locale(place: Path, variables: dict[str, str]) -> None:
    os.rename(place / "in.csv", os.fsencode(place) + b"/\xf6.csv")
    (place / "named.csv").write_text("größe\nA\n")
    ascii_locale = "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0"
    script = f"""quorumvault tokenize $'\\xf6.csv' --column ssn -o $'o\\xf6.csv' &&
        {ascii_locale} quorumvault tokenize named.csv --column größe --json -o größe.csv"""
    code, _, out = shell(place, variables, script)
    assert code == 0
    assert '{"values":{"größe":1},' in out.decode()
    assert (place / "größe.csv").exists()
