"""Real client processes that are interrupted in the middle of a run, and what --resume makes of what they left."""

import asyncio
import contextlib
import json
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chaos.testbed.cluster import environment, executable
from quorumvault.testing.serving import served
from tests.rigs.tables import read, write
from tests.rigs.vault import Rig, key_text

pytestmark = pytest.mark.slow

FILES = 4
SECONDS = 60


class Turnstile:
    """Lets so many requests about values through; later requests wait until it is opened."""

    def __init__(self, rig: Rig) -> None:
        self.left = -1
        self.reached, self.open = threading.Event(), threading.Event()
        self.begin = rig.vault.begin
        rig.vault.begin = self._wait  # type: ignore[method-assign]

    def let_through(self, requests: int) -> None:
        self.left = requests
        self.reached.clear()
        self.open.clear()

    async def _wait(self, operation: str, items: Iterable[Any]) -> None:
        await self.begin(operation, items)
        if operation not in ("tokenize", "detokenize", "retokenize"):
            return
        if self.left == 0:
            self.reached.set()
            await asyncio.to_thread(self.open.wait, SECONDS)
        self.left -= 1


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def turnstile(rig: Rig) -> Turnstile:
    return Turnstile(rig)


@pytest.fixture
def variables(rig: Rig) -> Iterator[dict[str, str]]:
    with served(rig.app) as url:
        yield environment(QUORUMVAULT_URL=url, QUORUMVAULT_API_KEY=key_text("admin"))


def furnish(place: Path, form: str) -> None:
    (place / "in").mkdir()
    for number in range(FILES):
        write(place / "in" / f"{number}.{form}", [(f"name {number} {row}", f"{row}") for row in range(50)])


COMMAND = ("tokenize", "in", "--column", "name", "-o", "out")


def start(place: Path, variables: dict[str, str], *more: str, limit: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    command = [executable(), *COMMAND, *more]
    return subprocess.Popen(
        command, cwd=place, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limit
    )


def ended(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    """Asserts that the process ends with this code. Returns its standard output and standard error."""
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == code, err
    return out, err


def resumed(place: Path, variables: dict[str, str], form: str, kept: int) -> None:
    """Resumes the run, and checks that its output equals that of an uninterrupted run."""
    out, _ = ended(start(place, variables, "--resume", "--json"))
    report = json.loads(out)
    assert (report["parts_kept"], report["parts_done"], report["look_ups"]) == (kept, FILES - kept, 50 * (FILES - kept))
    assert sorted(path.name for path in place.iterdir()) == ["in", "out"]
    (place / "out").rename(place / "resumed")
    ended(start(place, variables))
    for number in range(FILES):
        assert read(place / "resumed" / f"{number}.{form}") == read(place / "out" / f"{number}.{form}")


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_end(form: str, number: int, turnstile: Turnstile, variables: dict[str, str], tmp_path: Path) -> None:
    furnish(tmp_path, form)
    turnstile.let_through(1)
    process = start(tmp_path, variables)
    assert turnstile.reached.wait(SECONDS)
    process.send_signal(number)
    _, err = ended(process, 128 + number)  # although no answer arrives
    turnstile.open.set()
    kept = "Finished parts are kept in {}/.out.quorumvault (1 part, 50 rows): the same command with --resume goes on"
    assert kept.format(tmp_path) in err
    assert err.endswith("quorumvault: interrupted\n")
    assert not (tmp_path / "out").exists()
    assert {path.name for path in (tmp_path / ".out.quorumvault").iterdir() if path.is_dir()} == set()
    resumed(tmp_path, variables, form, kept=1)


def test_asked_to_end_before_anything_was_finished(turnstile: Turnstile, variables: dict[str, str], tmp_path: Path) -> None:
    furnish(tmp_path, "csv")
    turnstile.let_through(0)
    process = start(tmp_path, variables)
    assert turnstile.reached.wait(SECONDS)
    process.send_signal(signal.SIGINT)
    _, err = ended(process, 130)
    turnstile.open.set()
    assert "nothing is kept: the same command begins anew" in err
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


#: The command, inside a library call while its outputs are assembled: Python runs no bytecode for minutes. A signal that comes
#: just before the call does not prevent it.
_AT_WORK = """
import contextlib, hashlib, sys
from quorumvault.cli import interrupts, main
from quorumvault.files.text.engine import TextConversion
def assemble(*arguments):
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            print("at work", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
TextConversion.assemble = assemble
interrupts.GRACE = float(sys.argv.pop(1))
main(sys.argv[1:])
"""


@pytest.mark.parametrize(("grace", "is_impatient"), [(0.1, False), (3600.0, True)])
def test_asked_to_end_while_a_library_is_at_work(
    grace: float, is_impatient: bool, variables: dict[str, str], tmp_path: Path
) -> None:
    """The process ends after a grace period all the same, and at the second Ctrl-C at once. It leaves no values."""
    furnish(tmp_path, "csv")
    command = [sys.executable, "-c", _AT_WORK, str(grace), *COMMAND]
    process = subprocess.Popen(command, cwd=tmp_path, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    assert list((tmp_path / ".out.quorumvault").glob("*spill*"))
    process.send_signal(signal.SIGINT)
    while is_impatient and process.poll() is None:  # two signals that arrive together count as one
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    _, err = ended(process, 130)
    assert f"(4 parts, {50 * FILES} rows): the same command with --resume goes on" in err
    assert err.endswith("quorumvault: interrupted\n")
    assert not list((tmp_path / ".out.quorumvault").glob("*spill*"))
    resumed(tmp_path, variables, "csv", kept=FILES)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_disk_that_is_full(form: str, variables: dict[str, str], tmp_path: Path) -> None:
    """A limit on the size of the process's files stands in for a full disk."""
    furnish(tmp_path, form)
    write(tmp_path / "in" / f"9.{form}", [(f"name {row % 50}", random.Random(row).randbytes(400).hex()) for row in range(2000)])

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    _, err = ended(start(tmp_path, variables, limit=limit), 2)
    assert "Traceback" not in err
    assert "File too large" in err
    assert f"Finished parts are kept in {tmp_path}/.out.quorumvault" in err
    assert not (tmp_path / "out").exists()
    out, _ = ended(start(tmp_path, variables, "--resume", "--json"))
    assert json.loads(out)["parts_kept"] >= FILES
    assert len(read(tmp_path / "out" / f"9.{form}")) == 2000
