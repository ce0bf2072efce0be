"""Commands at a terminal: what they draw and what they do not, and that Ctrl-C ends open-ended commands with exit code 0."""

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from chaos.testbed.cluster import NODES, Cluster, environment, executable, wait_for

DEADLINE = 30.0
#: Sequences that move the cursor, colour or erase.
CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
#: Makes standard input the controlling terminal of this process, then becomes the command.
_ATTACH = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """One command at a pseudo-terminal of 120 columns. Its standard output may go elsewhere."""

    def __init__(self, arguments: tuple[str, ...], variables: dict[str, str], stdout: int | None) -> None:
        self._keyboard, screen = pty.openpty()
        termios.tcsetwinsize(screen, (40, 120))
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _ATTACH, executable(), *arguments],
            stdin=screen,
            stdout=screen if stdout is None else stdout,
            stderr=screen,
            env=environment(TERM="xterm", **variables),
            start_new_session=True,
        )
        os.close(screen)
        self._written = b""

    @property
    def text(self) -> str:
        """All that was written, without the sequences that only move the cursor and colour the text."""
        return CONTROL.sub(b"", self._written).decode()

    def wait_for(self, words: str) -> None:
        end = time.monotonic() + DEADLINE
        while words not in self.text:
            assert time.monotonic() < end, f"{words!r} did not appear: {self.text}"
            assert self._read(), f"it ended without {words!r}: {self.text}"

    def press(self, key: bytes) -> None:
        os.write(self._keyboard, key)

    def end(self) -> int:
        """The command's exit code, once it has ended by itself."""
        end = time.monotonic() + DEADLINE
        while self._read():
            assert time.monotonic() < end, self.text
        return self._process.wait(DEADLINE)

    def has_open(self, directory: Path) -> bool:
        """Whether the command has a file open in this directory, including one without a name."""
        for descriptor in Path(f"/proc/{self._process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                if str(descriptor.readlink()).startswith(f"{directory}/"):
                    return True
        return False

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._keyboard)

    def _read(self) -> bool:
        """Waits briefly for output. Returns whether the command still has the terminal open."""
        if select.select([self._keyboard], [], [], 0.1)[0]:
            try:
                self._written += os.read(self._keyboard, 65536)
            except OSError:  # EIO: the other end is closed
                return False
        return True


Run = Callable[..., Terminal]
CTRL_C = b"\x03"


@pytest.fixture
def run(cluster: Cluster) -> Iterator[Run]:
    """Runs a command as the clinic, at a terminal of its own."""
    variables = {"QUORUMVAULT_URL": ",".join(map(cluster.url, NODES)), "QUORUMVAULT_API_KEY": cluster.api_key("clinic")}
    with ExitStack() as stack:

        def start(*arguments: str, stdout: int | None = None) -> Terminal:
            terminal = Terminal(arguments, variables, stdout)
            stack.callback(terminal.close)
            return terminal

        yield start


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text("id,name\n" + "".join(f"{number},name {number}\n" for number in range(12_000)))
    return path


def test_status_is_a_table_that_fits(run: Run, cluster: Cluster) -> None:
    status = run("status")
    assert status.end() == 0
    heading, *rows = status.text.splitlines()
    assert heading.split() == ["node", "url", "status", "state", "reachable", "peers", "version"]
    assert [row.split()[:4] for row in rows] == [[node, cluster.url(node), "ok", "active"] for node in NODES]


def test_status_that_is_watched_is_drawn_until_ctrl_c(run: Run) -> None:
    watching = run("status", "--watch")
    watching.wait_for("Ctrl-C ends this")
    assert "3 of 3" in watching.text
    watching.press(CTRL_C)
    assert watching.end() == 0
    assert "Traceback" not in watching.text


def test_events_are_followed_until_ctrl_c(run: Run, cluster: Cluster) -> None:
    following = run("events", "--config", str(cluster.directory / "cluster.yaml"), "--follow", "--kind", "epoch")
    cluster.api("n2", "clinic").get("/epoch")
    following.wait_for("n2 epoch ok")
    following.press(CTRL_C)
    assert following.end() == 0
    assert "Traceback" not in following.text


def test_a_file_shows_rows_rate_and_time_left(run: Run, table: Path, tmp_path: Path) -> None:
    tokenizing = run("tokenize", str(table), "--column", "name", "-o", str(tmp_path / "tokens.csv"))
    assert tokenizing.end() == 0
    assert re.search(r"12,000 rows .* 100% [0-9,]+ rows/s .* left", tokenizing.text)
    assert tokenizing.text.splitlines()[-2:] == [
        "12,000 rows; values that became tokens: name 12,000; epoch 1; 12,000 look-ups",
        "left as they are: id",
    ]


def test_what_is_redirected_has_no_progress_in_it(run: Run, table: Path, tmp_path: Path) -> None:
    with (tmp_path / "tokens.csv").open("wb") as file:
        assert run("tokenize", str(table), "--column", "name", stdout=file.fileno()).end() == 0
    assert b"\x1b" not in (tmp_path / "tokens.csv").read_bytes()


def test_rows_on_a_terminal_are_not_mixed_with_progress(run: Run, tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("id,name\n1,Ada\n")
    tokenizing = run("tokenize", str(tmp_path / "one.csv"), "--column", "name")
    assert tokenizing.end() == 0
    assert re.fullmatch(r"id,name\r\n1,qv_1_\w+\r\n1 rows; [^\r]*\r\nleft as they are: id\r\n", tokenizing.text)


def test_an_interrupted_command_says_so_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    waiting = run("tokenize", "-", "--format", "csv", "--column", "name", "-o", str(output))
    assert wait_for(lambda: waiting.has_open(tmp_path), DEADLINE)  # the future output is open, so the command reads its input
    waiting.press(b"id,name\n1,Ada\n")
    waiting.press(CTRL_C)
    assert waiting.end() == 130
    assert waiting.text.splitlines()[-1].removeprefix("^C") == "quorumvault: interrupted"  # the terminal may echo the key
    assert list(tmp_path.iterdir()) == []
