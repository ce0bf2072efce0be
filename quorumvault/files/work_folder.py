"""The work folder of a run: ``.NAME.quorumvault`` beside its output, with mode 0700, until all outputs have their names.

If the output is an object, the work folder is in the current folder, or where the job says, and its name has a digest of the URL.
It holds the manifest, the parts, the assembled outputs (``staged``), copies of objects that are read (``fetched``), and the spill
folder, unless the job puts that elsewhere. A run that fails before it has finished a part leaves nothing; after that, everything
but the spill folder stays for --resume. A lock on the folder admits one process at a time, and ends with the process.

Other users may write to the parent folder, such as /tmp. So a run takes an existing work folder only if this user made it and
nobody else can open it, and never a symbolic link. The run keeps the folder open and removes files through that descriptor. It
ends if the folder's name meanwhile belongs to something else, which can happen where other users may rename it.
"""

import contextlib
import dataclasses
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from quorumvault.durable import sync_directory, sync_file
from quorumvault.files.copies import fetch_all
from quorumvault.files.job import Job, RunError, SourceChanged
from quorumvault.files.manifest import Manifest, Plan, difference
from quorumvault.files.part_files import PartFiles
from quorumvault.files.sources import Source, known_suffix, root_of
from quorumvault.files.uploads import abandon_all
from quorumvault.files.urls import Url
from quorumvault.ownership import user_name

_SPILL_PREFIX = "quorumvault-spill-"
#: The file that names a spill folder elsewhere, so that a later run can find what a killed run left there.
_SPILL_NOTE = "spill-folder"
_FETCHED = "fetched"
#: The most characters of an object's name in the folder's name: file names have at most 255 bytes.
_NAME_LENGTH = 40
_REMOVE_IT = "a run is kept in a folder of that name, which is for you alone; remove what is there, or name another output"


class RunRefused(RunError):
    """A run did not start because of the state of an earlier run."""


class UnfinishedRun(RunRefused):
    """An earlier run to the same output is unfinished."""


class ManifestMismatch(RunRefused):
    """An unfinished run has another plan than this one."""


#: The folders whose locks this process holds.
_held: set[Path] = set()


class Kept(NamedTuple):
    """The state that an unfinished run has left."""

    folder: Path
    parts: int
    rows: int
    #: All outputs are made, and some may have their names already.
    is_made: bool


def work_path(job: Job) -> Path:
    """Returns the work folder of a job. It is on the output's file system, since outputs get their names by hard links."""
    place = job.output
    if place is None:
        place = job.root or (job.sources[0].place if len(job.sources) == 1 else root_of(job.sources))
    if isinstance(place, Url):
        return (job.work or Path.cwd()) / f".{place.name[:_NAME_LENGTH]}.{place.digest}.quorumvault"
    target = place.resolve()
    name = target.name if job.table is None else f"{target.name}.{job.table.replace('/', '%2F')}"
    if job.is_folder and target.is_dir() and target.stat().st_dev != target.parent.stat().st_dev:
        return target / ".quorumvault"
    return target.with_name(f".{name}.quorumvault")


def kept(job: Job) -> Kept | None:
    """Returns the state that --resume can continue from. Raises RunError for a manifest of another version."""
    path = work_path(job)
    found = Manifest.load(path)
    if found is None:
        return None
    return Kept(path, len(found.parts), sum(part.counts.rows for part in found.parts.values()), found.publishing)


def cut_off(job: Job) -> Kept | None:
    """Ends a run in place of its thread, right before the process ends. Returns the state that is kept."""
    path = work_path(job)
    if path not in _held:
        return None
    with contextlib.suppress(OSError, RunError):
        _clear_spill(path)
        left = kept(job)
        if left is not None and (left.parts or left.is_made):
            return left
        descriptor = _open_own(path)
        _remove(path, descriptor)
    return None


def with_copies(job: Job) -> Job:
    """Returns the job with the paths of its run's copies of objects."""
    if all(source.remote is None for source in job.sources):
        return job
    folder = work_path(job) / _FETCHED
    sources = [
        source if source.remote is None else dataclasses.replace(source, path=folder / f"{number:06}{known_suffix(source.place)}")
        for number, source in enumerate(job.sources)
    ]
    return dataclasses.replace(job, sources=tuple(sources))


def has_unfinished(job: Job) -> bool:
    """Returns whether an earlier run to the same output left a state to resume from."""
    return Manifest.load(work_path(job)) is not None


class WorkFolder:
    """An open work folder. ``path`` leads through its descriptor; ``name`` is for people."""

    def __init__(self, name: Path, descriptor: int, manifest: Manifest) -> None:
        self.name = name
        self.path = _through(descriptor)
        self._descriptor = descriptor
        self.manifest = manifest
        self.staged = self.path / "staged"

    def part_files(self, number: int) -> PartFiles:
        self._require_there()
        return PartFiles(self.path, number)

    def clear_staged(self) -> None:
        """Removes assembled outputs, which are assembled again: only the parts count."""
        self._require_there()
        shutil.rmtree(self.staged, ignore_errors=True)
        self.staged.mkdir(mode=0o700)

    def fetch(self, sources: Sequence[Source]) -> None:
        """Makes the missing copies of objects. Raises RunError, StoreError."""
        self._require_there()
        objects = [(source.remote, source.path) for source in sources if source.remote is not None]
        if objects:
            (self.path / _FETCHED).mkdir(mode=0o700, exist_ok=True)
            fetch_all(objects)

    def sync_staged(self) -> None:
        self._require_there()
        for path in self.staged.iterdir():
            sync_file(path)
        sync_directory(self.staged)

    def _require_there(self) -> None:
        """Raises RunRefused if the folder has lost its name."""
        if not _is_there(self.name, self._descriptor):
            raise RunRefused(f"{self.name} was moved away while the run was at it: nothing more is done there")

    @contextlib.contextmanager
    def spill(self, parent: Path | None) -> Iterator[Path]:
        """Yields a folder of mode 0700 for values, removed when the block ends."""
        folder = Path(tempfile.mkdtemp(prefix=_SPILL_PREFIX, dir=self.path if parent is None else parent))
        if parent is not None:
            (self.path / _SPILL_NOTE).write_bytes(os.fsencode(folder.absolute()))
        descriptor = _open_own(folder)
        try:
            yield _through(descriptor)
        finally:
            _remove(folder, descriptor)
            os.close(descriptor)


def _clear_spill(path: Path) -> None:
    """Removes the spill folders of a killed run, since they hold values."""
    for folder in path.glob(f"{_SPILL_PREFIX}*"):
        _remove_spill(folder)
    note = path / _SPILL_NOTE
    if note.exists():
        _remove_spill(Path(os.fsdecode(note.read_bytes())))
        note.unlink()


def _remove_spill(folder: Path) -> None:
    """Removes a spill folder, unless it is gone or another user's folder now has its name."""
    with contextlib.suppress(FileNotFoundError, RunRefused):
        descriptor = _open_own(folder)
        try:
            _remove(folder, descriptor)
        finally:
            os.close(descriptor)


def _empty(descriptor: int) -> None:
    """Empties an open folder. Follows no symbolic link."""
    for name in os.listdir(descriptor):
        try:
            os.unlink(name, dir_fd=descriptor)
        except IsADirectoryError:
            shutil.rmtree(name, dir_fd=descriptor)


def plan_under_way(job: Job) -> Plan | None:
    """Returns the plan of a run that was giving names, or None. Its sources may have changed."""
    found = Manifest.load(work_path(job))
    return found.plan if found is not None and found.publishing else None


@contextlib.contextmanager
def opened(job: Job, plan: Plan) -> Iterator[WorkFolder]:
    """Yields the folder of a new run, or of the run to resume. Removes it at the end, unless finished parts are left.

    If there is nothing to resume, a new run begins. Raises UnfinishedRun, ManifestMismatch.
    """
    path = work_path(job)
    with _locked(path) as descriptor:
        manifest = _manifest(path, descriptor, job, plan)
        _clear_spill(_through(descriptor))
        abandon_all(path)
        try:
            yield WorkFolder(path, descriptor, manifest)
        except BaseException as error:
            if isinstance(error, OSError) and isinstance(error.filename, str):
                error.filename = error.filename.replace(str(_through(descriptor)), str(path))
            if isinstance(error, SourceChanged) or not (manifest.parts or manifest.publishing):
                _remove(path, descriptor)
            raise
        Manifest.discard(_through(descriptor))
        _remove(path, descriptor)


def _through(descriptor: int) -> Path:
    """Returns a path to an open folder that stays valid after a rename (proc_pid_fd(5))."""
    return Path(f"/proc/self/fd/{descriptor}")


def _remove(path: Path, descriptor: int) -> None:
    """Removes an open folder. Anything else that now has its name stays."""
    _empty(descriptor)
    if _is_there(path, descriptor):
        path.rmdir()


def _manifest(path: Path, descriptor: int, job: Job, plan: Plan) -> Manifest:
    found = Manifest.load(_through(descriptor), path)
    if found is None:
        return _fresh(descriptor, plan)
    if job.resume:
        differs = difference(found.plan, plan, publishing=found.publishing)
        if differs is not None:
            raise ManifestMismatch(
                f"{path} is of a run that does not fit: {differs}. Ask for the same, or begin again with --force"
            )
        return found
    if not job.force:
        raise UnfinishedRun(
            f"{path} is an unfinished run with {len(found.parts)} finished parts: --resume goes on, --force begins again"
        )
    if found.publishing and found.plan.in_place:
        raise UnfinishedRun(f"{path} is a run that has begun to replace its sources: only --resume goes on with it")
    return _fresh(descriptor, plan)


def _fresh(descriptor: int, plan: Plan) -> Manifest:
    """Begins a new run in a folder in which an earlier run may have left files."""
    path = _through(descriptor)
    _clear_spill(path)
    abandon_all(path)
    Manifest.discard(path)
    _empty(descriptor)
    return Manifest.begin(path, plan)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Yields a descriptor of the locked folder, which is made if it does not exist."""
    while (descriptor := _lock(path)) is None:
        pass
    _held.add(path)
    try:
        yield descriptor
    finally:
        _held.discard(path)
        os.close(descriptor)


def _lock(path: Path) -> int | None:
    """Locks the folder. Returns None if its former process removed it before it was locked. Raises RunRefused."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        try:
            descriptor = _open_own(path)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return None
        except BlockingIOError:
            raise RunRefused(f"another process is at this run ({path} is locked)") from None
        if not _is_there(path, descriptor):
            return None
        stack.pop_all()
    return descriptor


def _is_there(path: Path, descriptor: int) -> bool:
    """Returns whether an open folder still has this name."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _open_own(path: Path) -> int:
    """Opens a folder that this user made and nobody else can open. Raises RunRefused, FileNotFoundError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EACCES):
            raise
        raise RunRefused(f"{path} is no folder of yours, and nothing is done with it: {_REMOVE_IT}") from None
    found = os.fstat(descriptor)
    if found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return descriptor
    os.close(descriptor)
    who = f"belongs to {user_name(found.st_uid)}"
    if found.st_uid == os.geteuid():
        who = f"is open to others (mode {stat.S_IMODE(found.st_mode):04o})"
    raise RunRefused(f"{path} {who}, and nothing is done with it: {_REMOVE_IT}")
