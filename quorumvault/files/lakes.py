"""Folders that are one table: Delta Lake, Iceberg, Hudi. The table's metadata says which files are data and what is deleted.

Read as a plain folder of Parquet, such a table shows deleted rows and lacks columns that only the metadata has. A file written
into the folder does not belong to the table. So both are refused.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

from quorumvault.errors import QuorumVaultError
from quorumvault.files.object_store import StoreError, ask_at_once, has_folder, matching
from quorumvault.files.urls import Url

LakeFormat: TypeAlias = Literal["Delta", "Iceberg", "Hudi"]


class LakeTable(NamedTuple):
    """A folder that is a table."""

    path: Path
    format: LakeFormat


class LakeRead(NamedTuple):
    """A version of a Delta table that a run reads. ``partition_by``: columns that are in the table's log, not in its files."""

    table: Path
    version: int
    partition_by: tuple[str, ...]


class LakeError(QuorumVaultError):
    """A file or a folder is a lake's table, or is in one: a mistake in the command."""


_AS_PARQUET: Final = "and write what you read as Parquet"
_WAYS: Final[dict[LakeFormat, str]] = {
    "Delta": "tokenize, detokenize and retokenize take the folder of one table, which needs the extra delta "
    f"(pip install 'quorumvault[delta]'); else read it with Spark or the package deltalake, {_AS_PARQUET}",
    "Iceberg": f"read it with Spark or the package pyiceberg, {_AS_PARQUET}",
    "Hudi": f"read it with Spark, {_AS_PARQUET}",
}

#: The hint for a Delta table in an object store: runs read Delta tables only from local files.
_REMOTE_WAY: Final = f"copy it to a folder of this machine, or read it with Spark or the package deltalake, {_AS_PARQUET}"

_READ: Final = "{} is a table of {}, whose metadata says which files are data: {}"
_WRITTEN: Final = "{} is a table of {}, and a file put into it belongs to nothing: name another place"


def lake_format(folder: Path) -> LakeFormat | None:
    """Returns the format of the table in this folder; None if the folder is not a table."""
    if (folder / "_delta_log").is_dir():
        return "Delta"
    if (folder / ".hoodie").is_dir():
        return "Hudi"
    metadata = folder / "metadata"
    if (metadata / "version-hint.text").is_file() or any(metadata.glob("*.metadata.json")):
        return "Iceberg"
    return None


class Lakes:
    """Looks for tables in the parent folders of files. Each folder is looked at once."""

    def __init__(self) -> None:
        self._known: dict[Path, LakeTable | None] = {}

    def around(self, path: Path) -> LakeTable | None:
        """Returns the table that ``path`` is or is in, None if there is none. ``path`` need not exist."""
        path = path.resolve()
        if path not in self._known:
            form = lake_format(path)
            above = None if path.parent == path else self.around(path.parent)
            self._known[path] = above or (None if form is None else LakeTable(path, form))
        return self._known[path]

    def refuse(self, path: Path) -> None:
        """Raises LakeError for a file to read that is in a table."""
        found = self.around(path)
        if found is not None:
            raise LakeError(_READ.format(found.path, found.format, _WAYS[found.format]))

    def refuse_output(self, path: Path) -> None:
        """Raises LakeError for a file to write that would be in a table."""
        found = self.around(path)
        if found is not None:
            raise LakeError(_WRITTEN.format(found.path, found.format))


def refuse_objects(read: Iterable[Url], written: Iterable[Url] = ()) -> None:
    """Raises LakeError if an object to read or to write is in a table. Finds none in a bucket that the caller may not list."""
    reading, writing = ({folder for url in urls for folder in url.folders()} for urls in (read, written))
    folders = list(reading | writing)
    for folder, form in zip(folders, ask_at_once(_object_format, folders), strict=True):
        if form is not None:
            way = _REMOTE_WAY if form == "Delta" else _WAYS[form]
            raise LakeError((_READ if folder in reading else _WRITTEN).format(folder, form, way))


def _object_format(folder: Url) -> LakeFormat | None:
    with contextlib.suppress(StoreError):
        if has_folder(folder.below("_delta_log")):
            return "Delta"
        if has_folder(folder.below(".hoodie")):
            return "Hudi"
        if has_folder(folder.below("metadata")) and matching(folder.below("metadata", "*.metadata.json")):
            return "Iceberg"
    return None
