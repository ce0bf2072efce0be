"""A run: plan -> parts, each synced -> all parts of one epoch -> whole outputs -> names. All outputs appear, or none.

killed at any instant before the names  --resume keeps the parts in the manifest and makes the others again
killed while it gives names             --resume gives the remaining names
epoch rotated during the run            the run makes parts of an older epoch again from their rows
source changed during the run           no output appears: the rows read may come from two states of the source
"""

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import msgspec

from quorumvault.client import Client
from quorumvault.client.policy import EPOCH_PASSES
from quorumvault.errors import EpochMoved
from quorumvault.files import manifest as manifests
from quorumvault.files import object_store, plain
from quorumvault.files.answers import MOVED_WORDS
from quorumvault.files.engine import Conversion, Engine
from quorumvault.files.job import CellCounts, Done, Job, Progress, Report, RunError, SourceChanged, ignore
from quorumvault.files.manifest import Part
from quorumvault.files.outputs import COMMIT, CROSSWALK, REJECTS, Outputs
from quorumvault.files.part_files import PartFiles, rejects_header
from quorumvault.files.sources import TEXT, require_utf8
from quorumvault.files.text.engine import TextEngine
from quorumvault.files.work_folder import WorkFolder, opened, with_copies, work_path
from quorumvault.formats.table import RowPlace
from quorumvault.ownership import umask


def run(job: Job, vault: Client, progress: Progress = ignore) -> Report:
    """Does the job. Returns its counts, once every output has its name.

    Raises InputsError, RunError (OutputExists, UnfinishedRun, ManifestMismatch, SourceChanged), ColumnError, InputError, OSError,
    and the client's errors: then there is no output, and finished parts are kept.
    """
    job = with_copies(job)
    with umask(0o077) as users:  # no other user may read the files that the run makes, or DuckDB for it
        return _run(job, vault, progress, Outputs(job, users), users)


def _run(job: Job, vault: Client, progress: Progress, outputs: Outputs, users: int) -> Report:
    """``users``: the umask for folders of outputs."""
    if job.crosswalk is not None or job.sources[0].format not in TEXT:
        require_utf8(work_path(job), job.crosswalk, job.spill, *(source.path for source in job.sources))
    if not work_path(job).exists():  # else the state of an earlier run comes first
        outputs.check()
    is_named = job.columns or all(source.columns for source in job.sources)
    configured = () if is_named else tuple(vault.fields())
    plan = manifests.make_plan(job, vault.key_id or "", configured, outputs.targets)
    with umask(users):
        work_path(job).parent.mkdir(parents=True, exist_ok=True)
    with opened(job, plan) as work, outputs.uploads(work.path, replacing=job.force or work.manifest.replacing) as uploads:
        making = _Making(job, vault, work, progress)
        if not work.manifest.publishing:
            outputs.check(is_begun=bool(work.manifest.parts))
            outputs.require_within_reach(work.path)
            work.fetch(job.sources)
            with work.spill(job.spill) as spill:
                engine = _engine(job, vault, configured, spill)
                with contextlib.closing(engine.answers):
                    making.make(engine, outputs, spill)
            outputs.send(work.staged, uploads, making.untouched())
            making.require_unchanged(outputs)
            outputs.check(is_begun=True)
            work.sync_staged()
            work.manifest.publish(replacing=job.force)
        replacing = job.force or work.manifest.replacing
        outputs.publish(work.staged, uploads, replacing=replacing, untouched=making.untouched())
        report = making.report()
        still_there = outputs.still_there
        if job.lake is not None:
            from quorumvault.files.columnar.delta import commit

            still_there = commit(job, job.lake, work.staged / COMMIT)
        report.still_there = still_there or msgspec.UNSET
        return report


def _engine(job: Job, vault: Client, configured: Sequence[str], spill: Path) -> Engine:
    if job.sources[0].format in TEXT:
        return TextEngine(job, vault, configured, spill)
    from quorumvault.files.columnar.engine import ColumnarEngine

    return ColumnarEngine(job, vault, configured, spill)


class _Tally:
    """Counts the work done: on parts that earlier runs made, and on parts that this run makes, perhaps more than once."""

    def __init__(self, parts: Mapping[int, Part], progress: Progress) -> None:
        self._progress = progress
        self._rows = {number: part.counts.rows for number, part in parts.items()}
        self.sizes = {number: part.size for number, part in parts.items()}
        self._kept = dict(self._rows)
        self._done = Done(sum(self._rows.values()), sum(self.sizes.values()), sum(self._kept.values()))
        self._number = -1

    def begin(self, number: int) -> None:
        """Notes that a part is being made, from its first row."""
        self._number = number
        rows, size, kept = self._rows.get(number, 0), self.sizes.get(number, 0), self._kept.pop(number, 0)
        self._done = Done(self._done.rows - rows, self._done.size - size, self._done.kept - kept)
        self._rows[number] = self.sizes[number] = 0

    def add(self, rows: int, size: int) -> None:
        self._rows[self._number] += rows
        self.sizes[self._number] += size
        self._done = Done(self._done.rows + rows, self._done.size + size, self._done.kept)
        self.show()

    def show(self) -> None:
        self._progress(self._done)


class _Making:
    """Makes the parts that the manifest lacks, and assembles the outputs."""

    _engine: Engine

    def __init__(self, job: Job, vault: Client, work: WorkFolder, progress: Progress) -> None:
        self._job = job
        self._vault = vault
        self._work = work
        self._manifest = work.manifest
        self._kept = set(work.manifest.parts)
        self._next = max(self._kept, default=-1) + 1
        self._done = self._look_ups = 0
        self._tally = _Tally(self._manifest.parts, progress)
        self._left_out: list[str] = []
        self._not_kept: list[str] = []
        self._in_order: list[str] = []

    def report(self) -> Report:
        report = Report(
            files=len(self._manifest.plan.sources),
            look_ups=self._look_ups,
            parts_kept=len(self._kept),
            parts_done=self._done,
            left_out=self._left_out or msgspec.UNSET,
            not_kept=self._not_kept or msgspec.UNSET,
            in_order=self._in_order or msgspec.UNSET,
            untouched=len(self.untouched()) or msgspec.UNSET,
        )
        for part in self._manifest.parts.values():
            report.add(part.counts)
        return report

    def untouched(self) -> set[int]:
        """Returns the numbers of sources that need no replacing: retokenize in place, and none of their tokens moved."""
        if self._job.output is not None:
            return set()
        parts = enumerate(self._manifest.by_source())
        return {number for number, made in parts if not any(_has_changed(part.counts, self._job) for part in made)}

    def make(self, engine: Engine, outputs: Outputs, spill: Path) -> None:
        """Makes all parts, and assembles all outputs, without giving names."""
        self._engine = engine
        try:
            conversions = [engine.conversion(source) for source in self._job.sources]
            if self._job.operation == "tokenize" and self._job.is_folder:
                for source, conversion in zip(self._job.sources, conversions, strict=True):
                    plain.require_no_folder_of(conversion, source.relative)
            self._tally.show()
            self._make_damaged(conversions)
            self._make_missing(conversions)
            self._settle_epoch(conversions)
            self._work.clear_staged()
            parts = [[self._work.part_files(part.number) for part in each] for each in self._manifest.by_source()]
            untouched = self.untouched()
            for number, conversion in enumerate(conversions):
                if number in untouched:
                    continue
                conversion.assemble(parts[number], outputs.staged(self._work.staged, number))
                self._not_kept += [f"{self._job.sources[number]}: {what}" for what in conversion.not_kept]
                if self._job.operation == "tokenize":
                    self._look_for_values(number, conversion, outputs.staged(self._work.staged, number))
            if self._job.lake is not None:
                self._stage_commit(conversions, outputs)
            self._stage_lists(list(chain.from_iterable(parts)), spill)
        except Exception as error:
            words = engine.explain(error)
            if words is None:
                raise
            words = words.replace(str(self._work.path), str(self._work.name)).replace(str(spill), "the spill folder")
            raise RunError(words) from None
        self._look_ups = engine.look_ups

    def _stage_commit(self, conversions: Sequence[Conversion], outputs: Outputs) -> None:
        """Stages the commit of a Delta table, and searches it for values. Raises InPlain."""
        from quorumvault.files.columnar.delta import stage

        staged = self._work.staged
        made = [outputs.staged(staged, number) for number in range(len(conversions))]
        self._not_kept += stage(self._job, made, staged / COMMIT)
        for source, conversion in zip(self._job.sources, conversions, strict=True):
            if self._job.operation == "tokenize" and not self._job.allow_plain:
                values = conversion.first_values(plain.ROWS)
                plain.require_absent(values, lambda: (staged / COMMIT).open("rb"), Path(), str(source))

    def _look_for_values(self, number: int, conversion: Conversion, staged: Path) -> None:
        """Searches an output for values outside their column. Raises InPlain."""
        source, values = self._job.sources[number], conversion.first_values(plain.ROWS)
        self._left_out += [f"{source}: {name}" for name in conversion.left_out]
        self._in_order += [f"{source}: {name}" for name, texts in values.items() if plain.is_in_order(texts)]
        if not self._job.allow_plain:
            relative = source.relative if self._job.is_folder else Path()
            plain.require_absent(values, lambda: conversion.opened(staged), relative, str(source))

    def require_unchanged(self, outputs: Outputs) -> None:
        remote = [source.remote for source in self._job.sources if source.remote is not None]
        for before, found in zip(remote, object_store.find_all([each.url for each in remote]), strict=True):
            if found != before:
                raise SourceChanged(before.url)
        for source, target, planned in zip(self._job.sources, outputs.targets, self._manifest.plan.sources, strict=True):
            if manifests.fingerprint(source, target) != planned:
                raise SourceChanged(source)

    def _make_damaged(self, conversions: Sequence[Conversion]) -> None:
        """Remakes parts whose files have changed: the disk lost a write, or someone edited them."""
        for part in list(self._manifest.parts.values()):
            if not self._work.part_files(part.number).is_whole(part.files):
                self._make_again(conversions, part)

    def _make_missing(self, conversions: Sequence[Conversion]) -> None:
        parts = self._manifest.by_source()
        for source, conversion in enumerate(conversions):
            last = parts[source][-1] if parts[source] else None
            while last is None or not last.is_last:
                start = RowPlace() if last is None else last.stop
                last = self._make_part(conversion, self._next, source, start, None)
                self._next += 1

    def _settle_epoch(self, conversions: Sequence[Conversion]) -> None:
        """Remakes parts of an older epoch, until all are of the active one. Raises EpochMoved."""
        for _ in range(EPOCH_PASSES):
            parts = [part for part in self._manifest.parts.values() if part.epoch is not None]
            if not parts:
                return
            newest, active = max(part.epoch or 0 for part in parts), self._vault.epoch()
            if active > newest:
                self._engine.answers.forget()
            stale = [part for part in parts if part.epoch != max(active, newest)]
            if not stale:
                return
            for part in stale:
                self._make_again(conversions, part)
        raise EpochMoved(MOVED_WORDS)

    def _make_again(self, conversions: Sequence[Conversion], part: Part) -> None:
        self._make_part(conversions[part.source], part.number, part.source, part.start, part.stop)

    def _make_part(self, conversion: Conversion, number: int, source: int, start: RowPlace, stop: RowPlace | None) -> Part:
        files = self._work.part_files(number)
        self._kept.discard(number)
        for left in reversed(range(EPOCH_PASSES)):
            files.clear()
            self._tally.begin(number)
            try:
                done = conversion.convert(start, stop, files, self._tally.add)
                break
            except EpochMoved:
                if not left:
                    raise
        size = self._tally.sizes[number]
        part = Part(number, source, start, done.stop, done.is_last, done.epoch, done.counts, files.finish(), size)
        self._manifest.add(part)
        self._done += 1
        return part

    def _stage_lists(self, parts: Sequence[PartFiles], spill: Path) -> None:
        """Assembles the list of rejects and the crosswalk, if the job asks for them."""
        staged, job = self._work.staged, self._job
        if job.rejects is not None:
            with (staged / REJECTS).open("xb") as sink:
                sink.write(rejects_header(job.rejects))
                for files in parts:
                    with files.rejects.open("rb") as part:
                        shutil.copyfileobj(part, sink)
        if job.crosswalk is not None:
            from quorumvault.files.crosswalk import write_crosswalk

            write_crosswalk([files.pairs for files in parts], staged / CROSSWALK, spill)


def _has_changed(counts: CellCounts, job: Job) -> bool:
    """Returns whether any cell of a part has changed."""
    return any(counts.values.values()) or bool(counts.rejected) or bool(counts.not_found and job.missing == "null")
