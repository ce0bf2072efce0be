"""bin/demo, run as a user runs it: it exits with 0, its output is true, and it leaves nothing behind."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import chaos.testbed.cluster
from chaos.demo import analysis, trouble
from chaos.demo import run as demo
from chaos.demo.partitions import Partitions
from chaos.demo.records import invent_input
from chaos.testbed import sample
from chaos.testbed.cluster import Cluster
from chaos.testbed.narration import ClaimFailed, Narrator
from tests import ROOT

#: What a user's own file may contain: a byte order mark, CRLF, unnecessary quotes, no line end on the last line.
OWN = (
    '\ufeffMRN,"NAME",NOTE,SSN\r\n'
    '007,"Ödön ""Ed"" Kovács","first, line\r\nsecond line",999-12-3456\r\n'
    '008,"",,\r\n'
    '009,Ödön,"x",999-12-3456'
).encode()  # fmt: skip


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """main() sets signal handlers, because it expects a process of its own."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run(*arguments: str | Path, temporary: Path) -> subprocess.CompletedProcess[str]:
    """Runs the demo with an empty standard input, as in a pipe. ``temporary`` is its folder for temporary files."""
    return subprocess.run(
        [sys.executable, "-m", "chaos.demo.run", *arguments],
        cwd=temporary.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    made = tmp_path / "temporary"
    made.mkdir()
    return made


def test_it_ends_well_on_a_file_of_ones_own_and_shows_none_of_it(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "own.csv").write_bytes(OWN)
    done = run("--input", "own.csv", "--column", "NAME,SSN", temporary=temporary)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗" not in done.stdout
    assert "claims held" in done.stdout.splitlines()[-1]
    assert not any(secret in done.stdout + done.stderr for secret in ("Kovács", "999-12-3456", "second line"))
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--input", "missing.csv"), "missing.csv: No such file"),
        (("--input", "own.csv", "--column", "NAME,AGE"), "no column AGE; the file's columns are MRN, NAME, NOTE, SSN"),
        (("--input", "plain.csv"), "the file's columns are colour, size"),
        (("--input", "ragged.csv", "--column", "a"), "record 2 has 1 cells, the header 2"),
        (("--column", "NAME"), "--column goes with --input"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(tmp_path: Path, temporary: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "own.csv").write_bytes(OWN)
    (tmp_path / "plain.csv").write_text("colour,size\nred,1\n")
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n3\n")
    done = run(*arguments, temporary=temporary)
    assert done.returncode == 2
    assert words in done.stderr
    assert list(temporary.iterdir()) == []


def test_it_notices_a_vault_that_gives_back_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lie(tmp_path, monkeypatch, "detokenize", "'{real}' \"$@\" | tr 5 6")
    assert demo.main([]) == 1
    assert "✗ through n2 every value comes back" in capsys.readouterr().out


def lie(directory: Path, monkeypatch: pytest.MonkeyPatch, command: str, instead: str) -> None:
    """From here on ``instead`` runs in place of one of the commands; ``{real}`` in it is the genuine command."""
    liar, real = directory / "quorumvault", chaos.testbed.cluster.executable()
    script = f'if [ "$1" = {command} ]; then {instead.format(real=real)}; else exec \'{real}\' "$@"; fi'
    liar.write_text(f"#!/bin/sh\n{script}\n")
    liar.chmod(0o755)
    monkeypatch.setattr(chaos.testbed.cluster, "executable", lambda: str(liar))


def test_it_notices_tables_that_were_not_moved(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "analysis"
    tables = analysis.lay_out(invent_input(tmp_path), sample.IDENTIFIERS, directory / "plain")
    lie(tmp_path, monkeypatch, "migrate", "exit 0")
    with pytest.raises(ClaimFailed, match="quorumvault census ends with exit code 0") as failed:
        analysis.analyse(cluster, Narrator(io.StringIO()), directory, "clinic", "registry", tables)
    assert "9,985 tokens of epochs before 2 are in the files given" in failed.value.saw


def test_it_notices_a_timeline_that_lacks_a_node(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lie(tmp_path, monkeypatch, "events", "'{real}' \"$@\" | grep -v '\"n3\"'")
    with pytest.raises(ClaimFailed) as failed:
        trouble.timeline(cluster, Narrator(io.StringIO()))
    assert "events of n1, n2, ordered: True" in failed.value.saw


class Whole(Partitions):
    """Links on which no fault acts."""

    def __init__(self) -> None: ...

    def cut_off(self, node: str) -> None: ...

    def mend(self, node: str) -> None: ...


def test_it_notices_a_node_that_is_not_cut_off(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "_NOTICE_SECONDS", 0.1)
    with pytest.raises(ClaimFailed, match="n1 notices that it is alone"):
        trouble.cut_off(cluster, Whole(), Narrator(io.StringIO()), "clinic")
