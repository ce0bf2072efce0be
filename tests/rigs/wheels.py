"""Wheels without an index: rebuilt from this environment's packages; and a newer release of a wheel."""

import importlib.metadata
import re
import zipfile
from contextlib import suppress
from pathlib import Path

from tests import ROOT


def of_this_environment(into: Path) -> None:
    """Packs every package in requirements.txt that QuorumVault needs on this Python."""
    for name in re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE):
        with suppress(importlib.metadata.PackageNotFoundError):  # for another Python; if not, pip reports it missing
            _pack(importlib.metadata.distribution(name), into)


def _pack(package: importlib.metadata.Distribution, into: Path) -> None:
    """Packs all installed files except commands and bytecode, both of which pip makes."""
    tags = re.findall(r"^Tag: (\S+)$", package.read_text("WHEEL") or "", re.MULTILINE)
    name = re.sub(r"[^\w.]+", "_", package.metadata["Name"])
    with zipfile.ZipFile(into / f"{name}-{package.version}-{tags[0]}.whl", "w") as wheel:
        for file in package.files or ():
            if file.parts[0] != ".." and file.suffix != ".pyc" and file.name not in ("INSTALLER", "REQUESTED", "direct_url.json"):
                wheel.write(str(file.locate()), str(file))


def released_after(wheel: Path, version: str, newer: str) -> Path:
    """Makes a copy of a wheel under a newer version, beside it. Returns the copy."""
    made = wheel.with_name(wheel.name.replace(version, newer))
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if ".dist-info/" in name or name == "quorumvault/__init__.py":
                content = content.replace(version.encode(), newer.encode())
            new.writestr(name.replace(f"-{version}.dist-info/", f"-{newer}.dist-info/"), content)
    return made
