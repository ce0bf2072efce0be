"""The README's first five minutes, typed as written. The commands come from the README and from the output of ``dev``.

``bin/demo`` has a test of its own (test_demo.py), and ``bin/test`` runs this one.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from chaos.testbed.cluster import environment, free_base_port
from tests import ROOT

PAGE = (ROOT / "README.md").read_text()
SESSION = PAGE.partition("## The first five minutes")[2].partition("\n## ")[0]
FIRST, BEFORE_KILL, AFTER_KILL = re.findall(r"```console\n(.*?)```", SESSION, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", SESSION, re.DOTALL)[0]
SECONDS = 90


def commands(block: str) -> list[str]:
    return [line.removeprefix("$ ") for line in block.splitlines()]


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[list[str]]:
    """The first terminal: what it printed up to the point where the cluster was ready."""
    setup, activate, command = commands(FIRST)
    assert (setup, activate) == ("bin/setup", "source .venv/bin/activate")  # the environment that this test runs in
    with subprocess.Popen(
        [*shlex.split(command), "--base-port", str(free_base_port())],
        cwd=tmp_path,
        env=environment(PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin"),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield until_ready(process.stdout)
        finally:
            process.send_signal(signal.SIGINT)
            process.stdout.read()
            assert process.wait(SECONDS) == 0


def until_ready(output: IO[str]) -> list[str]:
    lines = []
    for line in output:
        lines.append(line.strip())
        if line.startswith("Ready:"):
            return lines
    raise AssertionError(f"it ended before it was ready: {lines}")


def test_the_commands_at_the_top_are_there() -> None:
    commands = [line.split()[0] for line in PAGE.split("```")[1].strip().splitlines()]
    assert commands == ["bin/demo", "bin/test"]
    assert all(os.access(ROOT / command, os.X_OK) for command in commands)


def test_the_first_five_minutes(dev: list[str], tmp_path: Path) -> None:
    exports = [line for line in dev if line.startswith("export ")]
    (curl,) = [line for line in dev if line.startswith("curl ")]
    (kill,) = [line for line in dev if line.startswith("kill ")]
    assert len(exports) == 2

    def terminal(*lines: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join([*exports, *lines])],
            cwd=tmp_path,
            env=environment(PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin"),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert '"tokens":["qv_1_' in terminal(curl).replace(" ", "")
    shown = terminal(*commands(BEFORE_KILL))
    assert re.search(r"^1,qv_1_\w{48},qv_1_\w{48},02155$", shown, re.MULTILINE)
    assert "Ada" not in (tmp_path / "tokens.csv").read_text()
    terminal(kill)
    assert terminal(*commands(AFTER_KILL)).endswith((tmp_path / "patients.csv").read_text())
    script = tmp_path / "client.py"
    script.write_text(PYTHON + "\nprint(values)\n")
    assert terminal(f"python {script}").strip() == "['Ada Lovelace', None, '42']"
