"""The sources of a run: names, globs, folders, and tables in DuckDB files.

A name is that of a file, if there is one, or of a folder, or a glob ("tok/**/*.parquet"), or FILE.duckdb::TABLE. Of folders and
globs, what is hidden (".x") or set apart ("_SUCCESS", "_temporary") is no data. A Hive-partitioned folder is a folder: the values
that its paths hold stay in the paths. A table of Delta Lake, Iceberg or Hudi is none: no file in it stands for itself.
"""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from quorumvault.errors import QuorumVaultError
from quorumvault.files.lakes import Lakes

Format: TypeAlias = Literal["csv", "jsonl", "parquet", "duckdb"]

Compression: TypeAlias = Literal["gzip", "zstd"]

_SUFFIXES: dict[str, Format] = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".psv"), "csv"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    ".parquet": "parquet",
    ".duckdb": "duckdb",
}
_DELIMITERS = {".tsv": "\t", ".tab": "\t", ".psv": "|"}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
#: Formats that are rows of text, and need no extra.
TEXT: tuple[Format, ...] = ("csv", "jsonl")
_TABLE_MARK = "::"
_IDENTIFIER = re.compile(r'"((?:[^"]|"")+)"|([^."]+)')


class InputsError(QuorumVaultError):
    """The named files cannot be worked on together: a mistake in the command."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or a table in one. ``relative`` is where its output is below an output folder.

    ``columns``, if there are any, are those to work on in place of the job's.
    """

    path: Path
    format: Format
    relative: Path
    table: str | None = None
    columns: tuple[str, ...] = ()

    @property
    def root(self) -> Path:
        """The folder that ``relative`` starts from."""
        return Path(*self.path.parts[: len(self.path.parts) - len(self.relative.parts)])

    def __str__(self) -> str:
        return printable(self.path, self.table)


def expand(names: Sequence[str], *, format: Format | None = None, table: str | None = None) -> list[Source]:  # noqa: A002
    """The files that are meant, each once, those of a folder or a glob sorted by name. Raises InputsError, LakeError.

    ``format`` is that of all files, else each one's suffix tells. ``table`` is the one to take of a DuckDB file.
    """
    sources: dict[tuple[Path, str | None], Source] = {}
    lakes = Lakes()
    for name in names:
        if Path(name).is_dir():  # which may have no file yet, or only those that were deleted
            lakes.refuse(Path(name))
        for source in _expand(name, format, table):
            lakes.refuse(source.path)
            sources.setdefault((source.path.resolve(), source.table), source)
    found = list(sources.values())
    _check_together(found)
    return found


def is_single(name: str) -> bool:
    """Returns whether a name means one file, which has one output. Any other has a folder of outputs."""
    path, _ = split_table(name)
    return path.is_file() or not (path.is_dir() or glob.has_magic(name))


def split_table(name: str) -> tuple[Path, str | None]:
    """FILE.duckdb::TABLE in its parts; of another name, the path. Raises InputsError for a table that no file can have."""
    path, mark, table = name.partition(_TABLE_MARK)
    if any(0xD800 <= ord(character) <= 0xDFFF for character in table):  # a byte that is no UTF-8
        raise InputsError(f"{printable(Path(name))}: names of tables are UTF-8")
    return (Path(path), table) if mark and Path(path).suffix.lower() == ".duckdb" else (Path(name), None)


def schema_and_name(table: str) -> tuple[str, str]:
    """The schema and the name in [SCHEMA.]TABLE, in which parts may be quoted as in SQL: "a.b" is one name."""
    parts = [quoted.replace('""', '"') or plain for quoted, plain in _IDENTIFIER.findall(table)]
    return ("main", table) if not parts else ("main", parts[0]) if len(parts) == 1 else (parts[0], ".".join(parts[1:]))


def printable(path: Path, table: str | None = None) -> str:
    """A name as text: of bytes that are no UTF-8, their escapes."""
    name = os.fsencode(path).decode(errors="backslashreplace")
    return name if table is None else f"{name}{_TABLE_MARK}{table}"


def require_utf8(*paths: Path | None) -> None:
    """Raises InputsError for a path with bytes in it that are no UTF-8, or that an ASCII locale hides: DuckDB opens none such."""
    for path in paths:
        if path is not None and not os.fspath(path.absolute()).isascii():
            try:
                os.fspath(path.absolute()).encode()
            except UnicodeEncodeError:
                words = "Parquet, DuckDB and crosswalks need names that are UTF-8, and a locale that is"
                raise InputsError(f"{printable(path)}: {words}: give it another name") from None


def format_of(path: Path) -> Format | None:
    """By the suffix, without that of a compression, which only text has."""
    found = _SUFFIXES.get(_uncompressed(path).suffix.lower())
    return found if found in TEXT or compression_of(path) is None else None


def compression_of(path: Path) -> Compression | None:
    return _COMPRESSIONS.get(path.suffix.lower())


def delimiter_of(path: Path) -> str:
    """The delimiter of a text table that has this name."""
    return _DELIMITERS.get(_uncompressed(path).suffix.lower(), ",")


def _uncompressed(path: Path) -> Path:
    return path if compression_of(path) is None else path.with_suffix("")


def root_of(sources: Sequence[Source]) -> Path:
    """The folder that all of them are in."""
    return Path(os.path.commonpath([source.root.absolute() for source in sources]))


def _expand(name: str, form: Format | None, table: str | None) -> Iterator[Source]:
    path, named = split_table(name)
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.is_file() and _is_data(each.relative_to(path)))
        yield from (_source(each, path, form, table) for each in files if form or format_of(each))
    elif path.exists():
        yield _source(path, path.parent, form, named or table)
    elif glob.has_magic(name):
        root = _root(name)
        files = sorted(Path(each) for each in glob.glob(name, recursive=True) if Path(each).is_file())
        yield from (_source(each, root, form, table) for each in files if _is_data(each.relative_to(root)))
        if not files:
            raise InputsError(f"no file matches {name}")
    else:
        raise InputsError(f"{path}: there is no such file or folder")


def _source(path: Path, root: Path, form: Format | None, table: str | None) -> Source:
    found = form or format_of(path)
    if found is None:
        raise InputsError(f"{path}: say which format it is: --format csv, jsonl, parquet or duckdb")
    if (found == "duckdb") != (table is not None):
        words = "say which table: FILE.duckdb::TABLE, or --table" if found == "duckdb" else "only a DuckDB file has tables"
        raise InputsError(f"{path}: {words}")
    return Source(path, found, path.relative_to(root), table)


def _root(pattern: str) -> Path:
    """The folder before the first part of a pattern that has a wildcard."""
    parts = Path(pattern).parts
    first = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])


def _is_data(relative: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in relative.parts)


def _check_together(sources: Sequence[Source]) -> None:
    if not sources:
        raise InputsError("there is no file of a known format: csv, tsv, psv, jsonl, ndjson, parquet or duckdb")
    if len({source.format in TEXT for source in sources}) > 1:
        raise InputsError("text files (CSV, JSON Lines) and Parquet or DuckDB do not go in one run: name them in two")
    seen: dict[tuple[Path, str | None], Source] = {}
    for source in sources:
        other = seen.setdefault((source.relative, source.table), source)
        if other is not source:
            raise InputsError(f"{other} and {source} would be one file in the output folder: name them in two runs")
