"""``completion``: a script for each shell, and the program's answers to that script."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from quorumvault.cli import main

VARIABLE = "_QUORUMVAULT_COMPLETE"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script_that_asks_this_program(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert f"{VARIABLE}={shell}_complete" in result.stdout
    answer = json.loads(CliRunner().invoke(main, ["completion", shell, "--json"]).stdout)
    assert answer == {"shell": shell, "script": result.stdout.removesuffix("\n")}


def completed(words: str) -> list[str]:
    """The completions of the last of these words, requested as the bash script requests them."""
    environment = {VARIABLE: "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    program = Path(sys.executable).with_name("quorumvault")
    done = subprocess.run([program], env=environment, capture_output=True, text=True, timeout=60, check=True)
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_commands_options_and_choices_are_completed() -> None:
    assert completed("quorumvault sta") == ["status"]
    assert completed("quorumvault keys re") == ["revoke"]
    assert completed("quorumvault status --wa") == ["--watch"]
    assert completed("quorumvault tokenize --if-token k") == ["keep"]


def test_bash_takes_its_script() -> None:
    bash = shutil.which("bash")
    assert bash is not None
    script = CliRunner().invoke(main, ["completion", "bash"]).stdout
    done = subprocess.run(
        [bash, "-c", f"{script}\ncomplete -p quorumvault"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "_quorumvault_completion" in done.stdout
