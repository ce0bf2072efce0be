"""LevelDB's binding: either package will do, and a program without a store needs neither."""

import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from quorumvault.server.storage import binding
from quorumvault.testing.serving import served
from tests.rigs.vault import Rig

#: Makes imports of both packages fail, as if neither were installed.
_WITHOUT = "import sys; sys.modules.update(dict.fromkeys(['plyvel', 'plyvel_next']));"


def without_a_binding(program: str, *arguments: str) -> str:
    """The output of a program where no binding to LevelDB is installed."""
    command = [sys.executable, "-c", _WITHOUT + program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("installed", "other"), [("plyvel", "plyvel_next"), ("plyvel_next", "plyvel")])
def test_either_package_is_the_binding(installed: str, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(installed)
    monkeypatch.setitem(sys.modules, installed, module)
    monkeypatch.setitem(sys.modules, other, None)  # makes its import fail
    assert runpy.run_path(binding.__file__)["plyvel"] is module


def test_a_store_needs_one_of_them() -> None:
    with pytest.raises(AssertionError, match="plyvel"):
        without_a_binding("import quorumvault.server.storage.leveldb")


def test_the_package_and_the_client_need_no_store() -> None:
    without_a_binding(
        "import quorumvault as qv; [getattr(qv, name) for name in qv.__all__]; qv.Client('http://127.0.0.1:1').close()"
    )


def test_help_needs_no_store() -> None:
    program = """
from click.testing import CliRunner
from quorumvault.cli.main import _COMMANDS, main
for command in ("", *_COMMANDS):
    done = CliRunner().invoke(main, [*command.split(), "--help"])
    assert done.exit_code == 0, (command, done.exception)
    print(command, "Usage:" in done.stdout)
"""
    assert without_a_binding(program).count("True") > 20


def test_commands_of_a_client_need_no_store(tmp_path: Path) -> None:
    """Each command goes as far as it can with a key that no node knows."""
    file, key = tmp_path / "a.csv", tmp_path / "key"
    file.write_text("ssn\n1\n")
    key.write_text("qvk_aaaaaaaa_" + "a" * 32)
    program = """
import sys
from click.testing import CliRunner
from quorumvault.cli import main
url, file, key = sys.argv[1:]
there = ["--url", url, "--key-file", key]
for words in (
    ["status", "--url", url],
    ["rotate", "--from", "1", *there],
    ["tokenize", file, "--column", "ssn", *there],
    ["detokenize", file, "--column", "ssn", *there],
    ["retokenize", file, "--column", "ssn", *there],
    ["census", file, "--column", "ssn"],
    ["completion", "bash"],
):
    done = CliRunner().invoke(main, words)
    print(words[0], done.exit_code, type(done.exception), done.stderr)
"""
    with served(Rig().app) as url:
        said = without_a_binding(program, url, str(file), str(key))
    assert "plyvel" not in said
    assert "Usage" not in said
