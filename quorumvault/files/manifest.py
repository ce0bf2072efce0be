"""The plan of a run, and its finished parts: enough to resume after a kill at any instant, and to refuse another run's plan.

    manifest.json   the plan, and whether names are being given; replaced as a whole (written, synced, renamed)
    parts.jsonl     a line for each finished part, appended and synced after the part's own files; the later of two lines about
                    one part counts, and a last line without a line end was never finished

Appending to a list costs the same for the first part and the ten thousandth.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec

from quorumvault import durable
from quorumvault.files.job import CellCounts, IfToken, Job, JobOperation, Missing, RunError
from quorumvault.files.part_files import PartFile
from quorumvault.files.sources import Source, printable
from quorumvault.files.urls import Place, Url
from quorumvault.formats.dialect import PLAIN, Dialect
from quorumvault.formats.table import RowPlace

FORMAT = 1
_MANIFEST, _PARTS = "manifest.json", "parts.jsonl"
#: The number of bytes at each end of a file that its fingerprint covers: headers, and the footer of Parquet.
_SAMPLED_BYTES = 64 << 10
#: Suffixes of the logs beside a DuckDB file, which hold committed rows that are not in the file yet.
_DUCKDB_LOGS = (".wal", ".wal.checkpoint", ".wal.recovery")


class SourcePlan(msgspec.Struct, frozen=True):
    """A source, and a fingerprint of its file: size, time of the last change (ns), SHA-256 over its beginning and its end.

    The digest also covers all of this for a DuckDB file's logs. For an object it is the store's stamp, and there is no time.

    ``path`` is for people; ``target`` and the paths in a Plan are quoted as in a URL, since names need not be UTF-8.
    """

    path: str
    table: str | None
    columns: tuple[str, ...]
    target: str
    target_table: str | None
    size: int
    changed: int
    digest: str


class Plan(msgspec.Struct, frozen=True):
    """Everything that determines the outputs. ``key``, the public part of the API key, determines whose tokens they are."""

    operation: JobOperation
    columns: tuple[str, ...]
    cast: tuple[str, ...]
    if_token: IfToken
    missing: Missing
    status: bool
    rejects: str | None
    crosswalk: str | None
    in_place: bool
    key: str
    sources: list[SourcePlan]
    typed: bool = False
    keep: tuple[str, ...] = ()
    only_listed: bool = False
    dialect: Dialect = PLAIN
    restore_types: bool = False
    version: int | None = None


class Part(msgspec.Struct, frozen=True):
    """A finished part: rows of a source from ``start`` to ``stop``, about ``size`` bytes of it.

    ``epoch`` is the epoch of its tokens, if it has any.
    """

    number: int
    source: int
    start: RowPlace
    stop: RowPlace
    is_last: bool
    epoch: int | None
    counts: CellCounts
    files: list[PartFile]
    size: int = 0


class _Manifest(msgspec.Struct, frozen=True):
    format: int
    plan: Plan
    #: True once all outputs are made and get their names: from then on changes of the sources do not matter.
    publishing: bool = False
    #: True if outputs may replace existing files: the command that made the parts had --force.
    replacing: bool = False


class Manifest:
    """The two files in a work folder."""

    def __init__(self, folder: Path, content: _Manifest, lines: list[bytes]) -> None:
        self._folder = folder
        self._content = content
        self._size = sum(len(line) + 1 for line in lines)
        self.parts = {part.number: part for part in (msgspec.json.decode(line, type=Part) for line in lines)}

    @classmethod
    def begin(cls, folder: Path, plan: Plan) -> Manifest:
        manifest = cls(folder, _Manifest(FORMAT, plan), [])
        manifest._write()
        return manifest

    @classmethod
    def load(cls, folder: Path, name: Path | None = None) -> Manifest | None:
        """Loads a manifest; None if there is none. Raises RunError, with ``name`` for the folder, for another version."""
        path, shown = folder / _MANIFEST, name or folder
        try:
            content = msgspec.json.decode(path.read_bytes(), type=_Manifest)
            manifest = cls(folder, content, _whole_lines(folder / _PARTS))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):
            raise RunError(f"{shown / _MANIFEST} is no manifest of this version: remove {shown} to begin again") from None
        if content.format != FORMAT:
            words = f"{shown / _MANIFEST} has format {content.format}, this version knows {FORMAT}"
            raise RunError(f"{words}: remove {shown} to begin again")
        return manifest

    @property
    def plan(self) -> Plan:
        return self._content.plan

    @property
    def publishing(self) -> bool:
        return self._content.publishing

    @property
    def replacing(self) -> bool:
        return self._content.replacing

    @staticmethod
    def discard(folder: Path) -> None:
        """Removes the manifest, durably. All other files in the folder can then be removed in any order."""
        (folder / _MANIFEST).unlink(missing_ok=True)
        durable.sync_directory(folder)

    def publish(self, *, replacing: bool) -> None:
        """Notes, durably, that names are being given: from now on a resumed run only gives names."""
        self._content = _Manifest(FORMAT, self.plan, publishing=True, replacing=replacing)
        self._write()

    def add(self, part: Part) -> None:
        """Adds a finished part, durably."""
        line = msgspec.json.encode(part) + b"\n"
        durable.extend(self._folder / _PARTS, self._size, line)  # overwrites a partial line that a kill or a full disk left
        self._size += len(line)
        self.parts[part.number] = part

    def by_source(self) -> list[list[Part]]:
        """Returns the parts of each source, in row order."""
        found: list[list[Part]] = [[] for _ in self.plan.sources]
        for part in sorted(self.parts.values(), key=lambda part: part.start):
            found[part.source].append(part)
        return found

    def _write(self) -> None:
        durable.replace(self._folder / _MANIFEST, msgspec.json.format(msgspec.json.encode(self._content)) + b"\n")


def _whole_lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []


def _quoted(place: Place) -> str:
    return str(place) if isinstance(place, Url) else quote_from_bytes(os.fsencode(place.absolute()))


def path_of(quoted: str) -> Path:
    return Path(os.fsdecode(unquote_to_bytes(quoted)))


def shown(source: Source) -> str:
    """Returns the name of a source in a plan."""
    return printable(source.place if isinstance(source.place, Url) else source.place.absolute())


def fingerprint(source: Source, target: tuple[Place, str | None]) -> SourcePlan:
    """Returns the plan of a source, with its fingerprint. Raises OSError if the file cannot be read."""
    output, table = _quoted(target[0]), target[1]
    if source.remote is not None:
        size = -1 if source.remote.size is None else source.remote.size
        return SourcePlan(shown(source), source.table, source.columns, output, table, size, 0, source.remote.stamp)
    sample = hashlib.sha256()
    found = _sample(source.path, sample)
    for suffix in _DUCKDB_LOGS if source.format == "duckdb" else ():
        with contextlib.suppress(FileNotFoundError):
            log = _sample(source.path.with_name(source.path.name + suffix), sample)
            sample.update(f"{suffix} {log.st_size} {log.st_mtime_ns}".encode())
    path, digest = shown(source), sample.hexdigest()
    return SourcePlan(path, source.table, source.columns, output, table, found.st_size, found.st_mtime_ns, digest)


def _sample(path: Path, sample: hashlib._Hash) -> os.stat_result:
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        sample.update(file.read(_SAMPLED_BYTES))
        file.seek(max(0, found.st_size - _SAMPLED_BYTES))
        sample.update(file.read(_SAMPLED_BYTES))
    return found


def make_plan(job: Job, key: str, configured: tuple[str, ...], targets: Sequence[tuple[Place, str | None]]) -> Plan:
    """Makes a run's plan. ``configured``: fields that name the columns if the job does not. ``targets``: files, with tables."""
    return Plan(
        job.operation,
        job.columns or configured,
        job.cast,
        job.if_token,
        job.missing,
        job.status,
        None if job.rejects is None else _quoted(job.rejects),
        None if job.crosswalk is None else _quoted(job.crosswalk),
        job.output is None,
        key,
        [fingerprint(source, target) for source, target in zip(job.sources, targets, strict=True)],
        job.typed,
        job.keep,
        job.only_listed,
        job.dialect,
        job.restore_types,
        None if job.lake is None else job.lake.version,
    )


_WORDS = {
    "operation": "the operation",
    "columns": "the columns (--column)",
    "cast": "--cast",
    "typed": "--typed",
    "keep": "--keep",
    "only_listed": "--only-listed",
    "dialect": "the dialect (--delimiter, --quoting, --encoding, --null)",
    "if_token": "--if-token",
    "missing": "--missing",
    "status": "--status",
    "restore_types": "--restore-types",
    "version": "the version of the table (--at-version)",
    "rejects": "--rejects",
    "crosswalk": "--crosswalk",
    "key": "the API key",
}


def difference(old: Plan, new: Plan, *, publishing: bool) -> str | None:
    """Names the first difference between two plans; None if they agree. While ``publishing``, sources may have changed."""
    for name, words in _WORDS.items():
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            return f"{words} was {_shown(before)} and is {_shown(after)}"
    if old.in_place != new.in_place or [_named(source) for source in old.sources] != [_named(source) for source in new.sources]:
        return "the input files, or the outputs, are not the same ones"
    for before, after in zip(old.sources, new.sources, strict=True):
        if not publishing and before != after:
            return f"{after.path} has changed since"
        if not publishing and not after.digest:
            return f"{after.path} may have changed since: its server tells neither ETag nor Last-Modified"
    return None


def _named(source: SourcePlan) -> tuple[object, ...]:
    return source.path, source.table, source.columns, source.target, source.target_table


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
