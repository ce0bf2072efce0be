"""Makes the distributions out of the files that git knows: first the sources, of these the wheel, of that the client's wheel.

No index is asked: the environment of the checkout has setuptools.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import NamedTuple

from quorumvault import __version__
from release.client import client_wheel
from release.links import absolute

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
    """The files that git knows, as they are here; links of the README lead to the project's URL."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", "quorumvault", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0")[:-1]:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
    readme = tree / "README.md"
    readme.write_text(absolute(readme.read_text(), project["urls"]["Source"], __version__))


def _run_backend(hook: str, tree: Path, into: Path) -> Path:
    """Calls a hook of PEP 517 in ``tree``. Returns what it made."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.{hook}(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, into.absolute()], cwd=tree, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{hook} failed:\n{done.stderr}")
    return into / done.stdout.splitlines()[-1]
