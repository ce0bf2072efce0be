"""The sources of a run: names, globs, folders, and tables in DuckDB files.

A name means a file, if there is one, or a folder, or a glob ("tok/**/*.parquet"), or FILE.duckdb::TABLE. In folders and globs,
hidden (".x") and reserved names ("_SUCCESS", "_temporary") are not data. A Hive-partitioned folder counts as a folder: values in
its paths stay in the paths. A table of Delta Lake, Iceberg or Hudi does not, since its files have no meaning without its
metadata. A URL names objects in the same ways; a run reads copies of them.
"""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePath, PurePosixPath
from typing import Literal, TypeAlias

from quorumvault.errors import QuorumVaultError
from quorumvault.files import object_store
from quorumvault.files.lakes import Lakes, refuse_objects
from quorumvault.files.urls import Place, RemoteObject, Url, UrlError, is_plain, name_of, url_of

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
_UNPACK, _AS_PARQUET = "unpack it first", "write it as Parquet first"
_NOT_READ = {
    **dict.fromkeys((".bz2", ".xz", ".lz4", ".zip", ".7z", ".tar", ".tgz"), _UNPACK),
    **dict.fromkeys((".orc", ".avro", ".arrow", ".feather"), _AS_PARQUET),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save its sheet as CSV first"),
    ".json": "of JSON, lines with a record each are read: --format jsonl; of an array, jq -c '.[]' makes such lines",
}
_CALLED: dict[Format, str] = {"csv": "CSV", "jsonl": "JSON Lines", "parquet": "Parquet", "duckdb": "a DuckDB file"}
#: Formats of rows of text, which need no extra.
TEXT: tuple[Format, ...] = ("csv", "jsonl")
_TABLE_MARK = "::"
#: The path of an object until its copy has one: no file can be there.
_NO_COPY = Path(os.devnull)
_IDENTIFIER = re.compile(r'"((?:[^"]|"")+)"|([^."]+)')


class InputsError(QuorumVaultError):
    """The named files cannot be used together: a mistake in the command."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or a table in a file. ``relative`` is the path of its output below an output folder.

    ``columns``, if any, replace the job's columns. For a ``remote`` object, ``path`` is the local copy, once there is one.
    """

    path: Path
    format: Format
    relative: Path
    table: str | None = None
    columns: tuple[str, ...] = ()
    remote: RemoteObject | None = None

    @property
    def place(self) -> Place:
        """The file, or the object."""
        return self.path if self.remote is None else self.remote.url

    @property
    def root(self) -> Path:
        """The folder that a file's ``relative`` path starts from."""
        return Path(*self.path.parts[: len(self.path.parts) - len(self.relative.parts)])

    def size(self) -> int | None:
        """The size in bytes; None if a web server does not report it. Raises OSError."""
        return self.path.stat().st_size if self.remote is None else self.remote.size

    def __str__(self) -> str:
        return printable(self.place, self.table)


def expand(names: Sequence[str], *, format: Format | None = None, table: str | None = None) -> list[Source]:  # noqa: A002
    """Returns the named sources, each once; those of a folder or a glob are sorted by name. Raises InputsError, LakeError.

    ``format``: the format of all files, by default that of each file's suffix. ``table``: the table to read of a DuckDB file.
    """
    sources: dict[tuple[Place, str | None], Source] = {}
    lakes = Lakes()
    for name in names:
        if Path(name).is_dir():  # a table may have no file, or only deleted ones
            lakes.refuse(Path(name))
        for source in _expand(name, format, table):
            if source.remote is None:
                lakes.refuse(source.path)
            sources.setdefault((resolved(source.place), source.table), source)
    found = list(sources.values())
    refuse_objects([source.remote.url for source in found if source.remote is not None])
    _check_together(found)
    return found


def is_single(name: str) -> bool:
    """Returns whether a name means one file, with one output file. Any other name has a folder of outputs."""
    path, _ = split_table(name)
    if isinstance(path, Url):
        return _is_one_object(path)
    return path.is_file() or not (path.is_dir() or glob.has_magic(name))


def split_table(name: str) -> tuple[Place, str | None]:
    """Splits FILE.duckdb::TABLE; the table of any other name is None. Raises InputsError for an impossible table name."""
    path, mark, table = name.partition(_TABLE_MARK)
    if any(0xD800 <= ord(character) <= 0xDFFF for character in table):  # a byte that is not UTF-8
        raise InputsError(f"{printable(Path(name))}: names of tables are UTF-8")
    has_table = mark and Path(path).suffix.lower() == ".duckdb"
    return (place_of(path), table) if has_table else (place_of(name), None)


def place_of(name: str) -> Place:
    """Returns the file or the object of a name. Raises InputsError for an unusable URL."""
    try:
        return url_of(name) or Path(name)
    except UrlError as error:
        raise InputsError(str(error)) from None


def resolved(place: Place) -> Place:
    """Returns an equal place for two names of one file, or of one object."""
    return place if isinstance(place, Url) else place.resolve()


def schema_and_name(table: str) -> tuple[str, str]:
    """Returns the schema and the name in [SCHEMA.]TABLE. Its parts may be quoted as in SQL: "a.b" is one name."""
    parts = [quoted.replace('""', '"') or plain for quoted, plain in _IDENTIFIER.findall(table)]
    return ("main", table) if not parts else ("main", parts[0]) if len(parts) == 1 else (parts[0], ".".join(parts[1:]))


def printable(path: Place, table: str | None = None) -> str:
    """Returns a name as text: bytes that are not UTF-8 are escaped, and secret parts of a URL are left out."""
    name = str(path) if isinstance(path, Url) else os.fsencode(path).decode(errors="backslashreplace")
    return name if table is None else f"{name}{_TABLE_MARK}{table}"


def require_utf8(*paths: Place | None) -> None:
    """Raises InputsError for a path that DuckDB cannot open: it has bytes that are not UTF-8, or that an ASCII locale hides."""
    for path in paths:
        if isinstance(path, Path) and not os.fspath(path.absolute()).isascii():
            try:
                os.fspath(path.absolute()).encode()
            except UnicodeEncodeError:
                words = "Parquet, DuckDB and crosswalks need names that are UTF-8, and a locale that is"
                raise InputsError(f"{printable(path)}: {words}: give it another name") from None


def format_of(path: Place) -> Format | None:
    """Returns the format that a suffix tells, None for an unknown one. Text may have the suffix of a compression after it."""
    found = _SUFFIXES.get(_uncompressed_suffix(path))
    return found if found in TEXT or compression_of(path) is None else None


def require_fitting(output: Place, form: Format) -> None:
    """Raises InputsError if the suffix of an output means another format than ``form``. A name may lack a known suffix."""
    suffix = _uncompressed_suffix(output)
    if _SUFFIXES.get(suffix, form) != form or (suffix in _NOT_READ and (form, suffix) != ("jsonl", ".json")):
        raise InputsError(f"{printable(output)}: the output is {_CALLED[form]}, and its name says {suffix}: name another file")


def compression_of(path: Place) -> Compression | None:
    return _COMPRESSIONS.get(path.suffix.lower())


def delimiter_of(path: Place) -> str:
    """Returns the delimiter of a text table with this name."""
    return _DELIMITERS.get(_uncompressed_suffix(path), ",")


def _uncompressed_suffix(path: Place) -> str:
    name = name_of(path)
    return (name if compression_of(path) is None else name.with_suffix("")).suffix.lower()


def known_suffix(place: Place) -> str:
    """Returns the suffix that tells a place's format, for another file of this format."""
    suffix, packed = _uncompressed_suffix(place), compression_of(place)
    return (suffix if suffix in _SUFFIXES else "") + (place.suffix.lower() if packed is not None else "")


def root_of(sources: Sequence[Source]) -> Place:
    """Returns the folder that all sources are in. Raises InputsError for both files and objects, or several buckets."""
    urls = [source.remote.url for source in sources if source.remote is not None]
    if not urls:
        return Path(os.path.commonpath([source.root.absolute() for source in sources]))
    buckets = {(url.scheme, url.rest.partition("/")[0]) for url in urls}
    if len(urls) < len(sources) or len(buckets) > 1:
        raise InputsError("files, and objects of several buckets, are not replaced in one run: name them in several")
    levels = zip(*(url.rest.split("/")[:-1] for url in urls), strict=False)
    shared = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels)]
    return Url(urls[0].scheme, "/".join(shared) + "/")


def _expand(name: str, form: Format | None, table: str | None) -> Iterator[Source]:
    path, named = split_table(name)
    if isinstance(path, Url):
        yield from _expand_url(path, form, named or table)
    elif path.is_dir():
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


def _expand_url(url: Url, form: Format | None, table: str | None) -> Iterator[Source]:
    found = None if url.is_folder else object_store.find(url)
    if found is not None:
        _require_plain(url, url.name)
        source = _remote_source(found, url.name, form, table)
        if source.format == "duckdb" and object_store.find(Url(url.scheme, f"{url.rest}.wal")) is not None:
            raise InputsError(f"{url} has rows in a log beside it (.wal): close the database that writes it, and copy both anew")
        yield source
        return
    if url.scheme == "https":
        raise InputsError(f"{url}: there is no such file")
    if glob.has_magic(url.rest):
        if glob.has_magic(url.rest.partition("/")[0]):
            raise InputsError(f"{url}: a wildcard stands for names in a bucket, not for buckets")
        root, objects = object_store.root_of_glob(url), object_store.matching(url)
        if not objects:
            raise InputsError(f"no object matches {url}")
    else:
        root, objects = url, object_store.in_folder(url)
        if not objects:
            raise InputsError(f"{url}: there is no such object or folder")
        objects = [each for each in objects if form or format_of(each.url)]
    names = [(each, each.url.rest.removeprefix(root.rest.rstrip("/") + "/")) for each in objects]
    for each, name in names:
        _require_plain(each.url, name)
        if _is_data(PurePosixPath(name)):
            yield _remote_source(each, name, form, table)


def _is_one_object(url: Url) -> bool:
    return not url.is_folder and object_store.find(url) is not None


def _require_plain(url: Url, relative: str) -> None:
    if not is_plain(relative):
        raise InputsError(f"{url}: its name has a part that is empty, or leads to another folder: name it alone")


def _remote_source(remote: RemoteObject, relative: str, form: Format | None, table: str | None) -> Source:
    return Source(_NO_COPY / relative, _format(remote.url, form, table), Path(relative), table, remote=remote)


def _source(path: Path, root: Path, form: Format | None, table: str | None) -> Source:
    return Source(path, _format(path, form, table), path.relative_to(root), table)


def _format(place: Place, form: Format | None, table: str | None) -> Format:
    found = form or format_of(place)
    if found is None:
        words = _NOT_READ.get(place.suffix.lower(), "say which format it is: --format csv, jsonl, parquet or duckdb")
        raise InputsError(f"{place}: {words}")
    if (found == "duckdb") != (table is not None):
        words = "say which table: FILE.duckdb::TABLE, or --table" if found == "duckdb" else "only a DuckDB file has tables"
        raise InputsError(f"{place}: {words}")
    return found


def _root(pattern: str) -> Path:
    """Returns the folder before the first part of a pattern with a wildcard."""
    parts = Path(pattern).parts
    first = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])


def _is_data(relative: PurePath) -> bool:
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
