"""Installs what was made into empty environments, one of each Python that this machine has, and uses it as its users would.

pip asks the index that it is configured for. Whatever does not work ends this with the words that were said.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from release.build import ROOT, Distributions

#: Many times what a step takes, in seconds.
_PATIENCE = 300.0
#: ``quorumvault dev``, values there and back through it, its end.
_ROUND_TRIP = """
import json, pathlib, signal, subprocess, sys, time
import quorumvault as qv
assert qv.__file__.startswith(sys.prefix), qv.__file__
from quorumvault.testing.cluster import free_base_port

began = time.monotonic()
command = [pathlib.Path(sys.executable).with_name("quorumvault"), "dev", sys.argv[1], "--json"]
nodes = subprocess.Popen([*command, "--base-port", str(free_base_port())], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
told = json.loads(nodes.stdout.readline() or sys.exit(nodes.stderr.read().decode()))
ready = time.monotonic() - began
with qv.Client([node["api"] for node in told["nodes"].values()], api_key=told["api_key"]) as vault:
    values = ["Ada Lovelace", 42, True, None]
    assert [each.value for each in vault.detokenize(vault.tokenize(values))] == values
nodes.send_signal(signal.SIGINT)
assert nodes.wait(60) == 0
print(f"{ready:.1f}")
"""
#: The client alone: it knows its version and every module of its own, and brought no library of a server's.
_CLIENT = """
import importlib.metadata, pkgutil, sys
import quorumvault, quorumvault.client
assert quorumvault.__file__.startswith(sys.prefix), quorumvault.__file__
brought = {each.metadata["Name"].lower() for each in importlib.metadata.distributions()}
assert not brought & {"cryptography", "click", "plyvel", "plyvel-next", "starlette", "uvicorn", "uvloop"}, brought
assert importlib.metadata.version("quorumvault-client") == quorumvault.__version__
for module in pkgutil.iter_modules(quorumvault.client.__path__):
    if module.name != "arrow":  # for which there is the extra
        __import__(f"quorumvault.client.{module.name}")
assert quorumvault.Client("http://127.0.0.1:1").urls == ("http://127.0.0.1:1",)
try:
    from quorumvault import register
except ModuleNotFoundError as error:
    assert "pip install 'quorumvault-client[analytics]'" in str(error), error
"""
_FIVE_TESTS = ROOT / "tests" / "cluster" / "five.py"


def try_all(made: Distributions) -> None:
    """Prints a row of seconds and sizes for each Python. Raises SystemExit if anything does not work."""
    print("Python  wheel   MB    dev ready  pytest + 5 tests  client  MB    sdist")
    for version, python in (line.split(" ", 1) for line in _run([ROOT / "bin" / "pythons"]).splitlines()):
        with tempfile.TemporaryDirectory() as directory:
            print(_try(version, python, Path(directory), made), flush=True)


def _try(version: str, python: str, directory: Path, made: Distributions) -> str:
    environment = _environment(python, directory / "whole")
    before = _bytes(directory / "whole")
    installed = _timed([environment, "-m", "pip", "install", "-q", made.wheel])
    size = _bytes(directory / "whole") - before
    ready = _run([environment, "-c", _ROUND_TRIP, directory / "vault"]).strip()
    project = directory / "test_mine.py"
    shutil.copy(_FIVE_TESTS, project)
    began = time.monotonic()
    _run([environment, "-m", "pip", "install", "-q", "pytest"])
    told = _run([environment, "-m", "pytest", "-q", "-p", "no:cacheprovider", project])
    if "5 passed" not in told:
        raise SystemExit(told)
    green = time.monotonic() - began

    alone = _environment(python, directory / "client")
    before = _bytes(directory / "client")
    client = _timed([alone, "-m", "pip", "install", "-q", made.client])
    _run([alone, "-c", _CLIENT])
    small = _bytes(directory / "client") - before

    third = _environment(python, directory / "sources")
    sources = _timed([third, "-m", "pip", "install", "-q", made.sdist])
    _run([third.with_name("quorumvault"), "--version"])
    return (
        f"{version:6}  {installed:4.1f} s  {size / 1e6:3.0f}  {ready:>6} s  {green:13.1f} s"
        f"  {client:6.1f} s  {small / 1e6:3.0f}  {sources:5.1f} s"
    )


def _environment(python: str, directory: Path) -> Path:
    """An empty one. Returns its Python."""
    _run([python, "-m", "venv", directory])
    return directory / "bin" / "python"


def _timed(command: Sequence[Path | str]) -> float:
    began = time.monotonic()
    _run(command)
    return time.monotonic() - began


def _run(command: Sequence[Path | str]) -> str:
    """Returns what it printed. Nothing of this checkout is in its way: it has what is installed."""
    others = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_PATIENCE, check=False, cwd=tempfile.gettempdir(), env=others
    )
    if done.returncode:
        shown = " ".join(map(str, command))[:200]
        raise SystemExit(f"exit code {done.returncode} of {shown}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def _bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
