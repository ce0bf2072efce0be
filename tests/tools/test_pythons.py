"""``bin/pythons``: which Pythons a machine has, whatever answers to their names."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def found(path: Path) -> list[str]:
    """Runs it with this folder as PATH, after adding the tools that it needs. Returns the lines that it prints."""
    for tool in ("bash", "awk"):
        at = shutil.which(tool)
        assert at is not None
        (path / tool).symlink_to(at)
    command = [ROOT / "bin" / "pythons"]
    return subprocess.run(command, env={"PATH": str(path)}, capture_output=True, text=True, check=True).stdout.splitlines()


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{shutil.which('bash')}\n{text}\n")
    path.chmod(0o755)


def python(path: Path) -> None:
    """Links the Python that runs this test under another name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.realpath(sys.executable))


def test_each_version_is_there_once_and_the_default_comes_first(tmp_path: Path) -> None:
    python(tmp_path / "python3")
    python(tmp_path / f"python{VERSION}")
    other = "3.13" if VERSION == "3.14" else "3.14"
    program(tmp_path / f"python{other}", f"echo {other} {tmp_path}/python{other}")
    assert found(tmp_path) == [f"{VERSION} {tmp_path}/python3", f"{other} {tmp_path}/python{other}"]


def test_a_name_that_does_not_answer_is_passed_over_and_a_pyenv_is_asked(tmp_path: Path) -> None:
    path, versions = tmp_path / "bin", tmp_path / "pyenv root" / "versions"
    for name in ("python3", "python3.12", "python3.13"):
        program(path / name, f"echo 'pyenv: {name}: command not found' >&2; exit 127")
    program(path / "pyenv", f"echo '{versions.parent}'")
    program(versions / "2.7.18" / "bin" / "python", "exit 1")
    python(versions / "3" / "bin" / "python")
    assert found(path) == [f"{VERSION} {versions}/3/bin/python"]


def test_a_python_that_is_too_old_or_makes_no_environment_is_none(tmp_path: Path) -> None:
    program(tmp_path / "python3", "exit 0")
    program(tmp_path / "python3.12", "echo 'No module named ensurepip' >&2; exit 1")
    assert found(tmp_path) == []


@pytest.mark.slow
def test_a_version_that_is_not_there_is_said_to_be_missing() -> None:
    command = [ROOT / "bin" / "setup"]
    done = subprocess.run(command, env=os.environ | {"VENV_PYTHON": "3.9"}, capture_output=True, text=True, check=False)
    words = "bin/setup: found no Python 3.9 among those that bin/pythons lists\n"
    assert (done.returncode, done.stderr) == (1, words)
