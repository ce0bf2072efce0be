"""Where outputs go, and how they get their names: checked before anything happens, given when all of them are whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from quorumvault.batch.job import Job, RunError
from quorumvault.batch.manifest import Plan, path_of
from quorumvault.batch.sources import InputsError, printable
from quorumvault.disk import sync_directory

#: Beside the staged outputs, which are numbered.
REJECTS, CROSSWALK = "rejects", "crosswalk"


class OutputExists(RunError):
    """There is a file where an output is to be: a mistake in the command, or --force."""


class Target(NamedTuple):
    """A file, or a table of a DuckDB file."""

    path: Path
    table: str | None = None

    def __str__(self) -> str:
        return printable(self.path, self.table)


class Outputs:
    """The target of each source, in their order."""

    def __init__(self, targets: list[Target], rejects: Path | None, crosswalk: Path | None, *, in_place: bool) -> None:
        self.targets = targets
        self._in_place = in_place
        self._lists = {REJECTS: rejects, CROSSWALK: crosswalk}

    @classmethod
    def of(cls, job: Job) -> Outputs:
        return cls(list(_targets(job)), job.rejects, job.crosswalk, in_place=job.output is None)

    @classmethod
    def of_plan(cls, plan: Plan) -> Outputs:
        targets = [Target(path_of(source.target), source.target_table) for source in plan.sources]
        rejects, crosswalk = (None if path is None else path_of(path) for path in (plan.rejects, plan.crosswalk))
        return cls(targets, rejects, crosswalk, in_place=plan.in_place)

    def check(self, job: Job) -> None:
        """Raises InputsError if a source would be overwritten, and OutputExists, unless that is what is wished."""
        sources = {Target(source.path.resolve(), source.table) for source in job.sources}
        files = [Target(path) for path in self._lists.values() if path is not None]
        for target in [*files, *([] if self._in_place else self.targets)]:
            resolved = target.path.resolve()
            if Target(resolved, target.table) in sources or (target.table is None and _is_path_of(resolved, sources)):
                raise InputsError(f"{target}: the output is the input: name another file")
            if resolved.exists() and not resolved.is_file():
                raise InputsError(f"{target.path} is no regular file: name another one")
            if not job.force and _exists(target):
                raise OutputExists(f"{target} exists: name another file, or give --force to replace it")

    def staged(self, folder: Path, number: int) -> Path:
        """Where the output of a source is put together. Its suffix is the target's: that is how DuckDB knows a format."""
        return folder / f"{number:06}{self.targets[number].path.suffix}"

    def publish(self, folder: Path) -> None:
        """Gives every staged file its name; may be called again after it was interrupted at any instant."""
        parents: set[Path] = set()
        for number, target in enumerate(self.targets):
            staged = self.staged(folder, number)
            if not staged.exists():
                continue  # done, before an interruption
            if target.table is not None and target.path.exists():
                from quorumvault.batch.duckdbtables import put_table

                put_table(staged, target.path, target.table)
                staged.unlink()
            else:
                parents.add(self._rename(staged, target.path))
        for name, path in self._lists.items():
            if path is not None and (folder / name).exists():
                parents.add(self._rename(folder / name, path))
        for parent in parents:
            sync_directory(parent)

    def _rename(self, staged: Path, path: Path) -> Path:
        """Answers the folder that has the name now."""
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._in_place and path.exists():
            shutil.copymode(path, staged)
        os.replace(staged, path)
        return path.parent


def _targets(job: Job) -> Iterator[Target]:
    for source in job.sources:
        if job.output is None:
            yield Target(source.path, source.table)
        elif job.is_folder:
            yield Target(job.output / source.relative, source.table)
        else:
            yield Target(job.output, job.table)


def _is_path_of(path: Path, sources: Iterable[Target]) -> bool:
    return any(source.path == path for source in sources)


def _exists(target: Target) -> bool:
    if target.table is None or not target.path.exists():
        return target.path.exists()
    from quorumvault.batch.duckdbtables import has_table

    return has_table(target.path, target.table)
