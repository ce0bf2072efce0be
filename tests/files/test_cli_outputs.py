"""Outputs of ``tokenize`` and ``detokenize``: each appears whole, replacing nothing, or not at all, even from a stream."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from chaos.testbed.cluster import environment as process_environment
from chaos.testbed.cluster import executable, wait_for
from quorumvault.cli import files
from quorumvault.cli.interrupts import interruptible
from quorumvault.files import run as runs
from quorumvault.files import stream
from tests.rigs.vault import Rig

pytestmark = pytest.mark.slow

Run = Callable[..., Result]
ROWS = b"id,ssn\n1,AAA\n"
TOKENIZE = ("tokenize", "--format", "csv", "--column", "ssn", "-o", "out.csv", "--rejects", "bad.csv")


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize("taken", ["out.csv", "bad.csv"])
def test_what_has_appeared_meanwhile_stays(taken: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def pass_through(*arguments: Any) -> Any:
        report = converted(*arguments)
        Path(taken).write_text("somebody else's")
        return report

    converted = stream.pass_through
    monkeypatch.setattr(files, "pass_through", pass_through)
    result = run(*TOKENIZE, stdin=ROWS)
    assert result.exit_code == 2
    assert f"{taken} has appeared meanwhile, and nothing is kept of this run: name another one" in result.stderr
    assert [(each.name, each.read_text()) for each in Path().iterdir()] == [(taken, "somebody else's")]
    assert run(*TOKENIZE, "--force", stdin=ROWS).exit_code == 0
    assert {each.name for each in Path().iterdir()} == {"out.csv", "bad.csv"}


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_no_value_stays_of_a_stream_that_is_cut_off(number: int, environment: dict[str, str], tmp_path: Path) -> None:
    """When its terminal closes, and when it is killed."""
    command = [executable(), "detokenize", "--format", "csv", "--column", "ssn", "-o", "v.csv"]
    (tmp_path / "empty").mkdir()
    process = subprocess.Popen(
        command,
        cwd=tmp_path / "empty",
        env=process_environment(**environment),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    assert process.stdin is not None
    process.stdin.write(b"ssn\n" + b"123-45-6789\n" * 40_000)  # text that is no token is not sent
    process.stdin.flush()
    assert wait_for(lambda: _written(process.pid, tmp_path / "empty") > 0, 60)
    process.send_signal(number)
    assert process.wait(60) in (128 + number, -number)
    process.communicate()
    assert not list((tmp_path / "empty").iterdir())


def _written(process: int, folder: Path) -> int:
    """The number of bytes in a process's open files in this folder."""
    sizes = 0
    for each in Path(f"/proc/{process}/fd").iterdir():
        try:
            if os.readlink(each).startswith(f"{folder}/"):
                sizes += each.stat().st_size
        except FileNotFoundError:  # closed in the meantime
            continue
    return sizes


def test_an_output_that_has_appeared_during_a_run_over_files_is_told_with_what_is_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def require_unchanged(*arguments: Any) -> None:
        Path("out.csv").write_text("somebody else's")

    Path("in.csv").write_bytes(ROWS)
    command = ("tokenize", "in.csv", "--column", "ssn", "-o", "out.csv")
    with monkeypatch.context() as patch:
        patch.setattr(runs._Making, "require_unchanged", require_unchanged)
        result = run(*command)
    assert result.exit_code == 2
    kept, error, _ = result.stderr.splitlines()
    assert kept.startswith("Finished parts are kept in ")
    assert "(1 part, 1 rows): the same command with --resume goes on" in kept
    assert error.endswith("out.csv has appeared meanwhile: move it away and --resume, or replace it by --resume --force")
    Path("out.csv").rename("theirs.csv")
    assert "1 parts were there already" in run(*command, "--resume").stderr


def test_nohup_keeps_a_command_when_its_terminal_is_closed() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
