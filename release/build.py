"""Makes the distributions out of the files that git knows: first the sources, of these the wheel, of that the client's wheel.

No index is asked: the environment of the checkout has setuptools.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from release.client import client_wheel

ROOT = Path(__file__).parent.parent


class Distributions(NamedTuple):
    sdist: Path
    wheel: Path
    client: Path


def build(into: Path) -> Distributions:
    """Makes the three in ``into``, which is made if need be."""
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        tree = Path(work, "tree")
        _copy(tree)
        sdist = _run_backend("build_sdist", tree, into)
        with tarfile.open(sdist) as sources:
            sources.extractall(Path(work, "sources"), filter="data")
        (unpacked,) = Path(work, "sources").iterdir()
        wheel = _run_backend("build_wheel", unpacked, into)
    return Distributions(sdist, wheel, client_wheel(wheel, into))


def _copy(tree: Path) -> None:
    """The files that git knows, as they are here."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", "quorumvault", "pyproject.toml", "setup.py", "README.md", "LICENSE"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0")[:-1]:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)


def _run_backend(hook: str, tree: Path, into: Path) -> Path:
    """Calls a hook of PEP 517 in ``tree``. Returns what it made."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.{hook}(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, into.absolute()], cwd=tree, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{hook} failed:\n{done.stderr}")
    return into / done.stdout.splitlines()[-1]
