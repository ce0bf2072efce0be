"""Wheels without an index: of packages that this environment has, as their wheels were; and a release after one that was made."""

import importlib.metadata
import re
import zipfile
from contextlib import suppress
from pathlib import Path

from tests import ROOT


def of_this_environment(into: Path) -> None:
    """Packs every package that QuorumVault needs, by requirements.txt, as far as it is for this Python."""
    for name in re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE):
        with suppress(importlib.metadata.PackageNotFoundError):  # it is for another Python; pip says so if it is not
            _pack(importlib.metadata.distribution(name), into)


def _pack(package: importlib.metadata.Distribution, into: Path) -> None:
    """Of what was installed all but commands and bytecode, both of which pip makes."""
    tags = re.findall(r"^Tag: (\S+)$", package.read_text("WHEEL") or "", re.MULTILINE)
    name = re.sub(r"[^\w.]+", "_", package.metadata["Name"])
    with zipfile.ZipFile(into / f"{name}-{package.version}-{tags[0]}.whl", "w") as wheel:
        for file in package.files or ():
            if file.parts[0] != ".." and file.suffix != ".pyc" and file.name not in ("INSTALLER", "REQUESTED", "direct_url.json"):
                wheel.write(str(file.locate()), str(file))


def released_after(wheel: Path, version: str, newer: str) -> Path:
    """Makes the same, under a newer version, beside a wheel. Returns it."""
    made = wheel.with_name(wheel.name.replace(version, newer))
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if ".dist-info/" in name or name == "quorumvault/__init__.py":
                content = content.replace(version.encode(), newer.encode())
            new.writestr(name.replace(f"-{version}.dist-info/", f"-{newer}.dist-info/"), content)
    return made
