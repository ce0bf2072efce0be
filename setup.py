"""The one thing about the package that pyproject.toml cannot say: on the page of an index the README's paths are addresses."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
_LINK = re.compile(r"(!?)(\[[^\[\]]*\])\((?!https?:|#|mailto:)([^)\s]+)\)")


def absolute(text: str, source: str, version: str) -> str:
    """``text`` with its links to files as addresses of the files of this version at ``source``, the project's URL.

    A picture's is that of the file itself: at the other one is a page that shows it, which no browser takes for a picture.
    """
    return _LINK.sub(lambda link: f"{link[1]}{link[2]}({source}/{'raw' if link[1] else 'blob'}/v{version}/{link[3]})", text)


def page() -> str:
    """The README, for an index."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.search(r'^__version__.*"(.+)"', (ROOT / "quorumvault" / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert named is not None
    return absolute((ROOT / "README.md").read_text(encoding="utf-8"), project["urls"]["Source"], named[1])


if __name__ == "__main__":
    setup(long_description=page(), long_description_content_type="text/markdown")
