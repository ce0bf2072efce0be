"""Outputs and their names: a run checks the names before it starts, and gives them when all outputs are whole.

Each finished file stays in the work folder until every output has its name: the name is a second hard link to the file. So an
interrupted run can give the names again, and recognizes an output that has its name by being the same file.

An output keeps the owner and the mode of the file it replaces. A new output belongs to the user of the run, and to the group that
its folder gives. Files of values, and lists, have mode 0600; files of tokens have the mode that the umask and the input allow. No
output is readable for more people than its input, and no folder made after one of the input is open to more people than it.
A path is resolved once, before the run, through symbolic links of this user or root only. Names are given through open
descriptors of folders and files: a folder or file that takes their place during the run is not followed.

An output that is an object is sent before any output gets its name, and appears when the files get theirs.
"""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Container, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from quorumvault.durable import sync_directory
from quorumvault.errors import ConfigError
from quorumvault.files import object_store
from quorumvault.files.job import Job, RunError
from quorumvault.files.lakes import Lakes, refuse_objects
from quorumvault.files.new_object import require_writable
from quorumvault.files.overlaps import file_key, overlap, require_own_schema, table_key
from quorumvault.files.sources import InputsError, known_suffix, printable, resolved
from quorumvault.files.uploads import Outgoing, Uploads
from quorumvault.files.urls import Place, Url
from quorumvault.files.work_folder import work_path
from quorumvault.ownership import (
    followed,
    group_of_new,
    opened_folder,
    reach,
    require_not_planted,
    require_replaceable,
    set_mode,
    take_after,
    umask,
)

_EXISTS: Final = "{} exists: name another {}, or give --force to replace it"
_APPEARED: Final = "{} has appeared meanwhile: move it away and --resume, or replace it by --resume --force"
#: The names of other staged files, beside the numbered outputs.
REJECTS, CROSSWALK, COMMIT = "rejects", "crosswalk", "commit"


class OutputExists(RunError):
    """An output exists already: a mistake in the command, or a case for --force."""


class Target(NamedTuple):
    """A file, an object, or a table of a DuckDB file."""

    path: Place
    table: str | None = None

    def __str__(self) -> str:
        return printable(self.path, self.table)


class _Place(NamedTuple):
    """A name in an open folder."""

    folder: int
    name: str

    def is_same(self, made: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.stat(self.name, dir_fd=self.folder, follow_symlinks=False), os.fstat(made))
        return False

    def link(self, made: int) -> bool:
        """Gives an open file this name. Returns False if the name is taken; what has it stays."""
        try:
            os.link(f"/proc/self/fd/{made}", self.name, dst_dir_fd=self.folder, follow_symlinks=True)
        except FileExistsError:
            return False
        return True


class Outputs:
    """The target of each source, in order, and the lists. ``umask`` is the user's; the run has another.

    Raises InputsError for a path with another user's symbolic link in it.
    """

    def __init__(self, job: Job, umask: int) -> None:
        self.targets = list(_targets(job))
        self._job = job
        self._umask = umask
        #: The local file of each source. For an object this is its copy, which only this user can read, and so its output too.
        self._sources = {target: source.path for target, source in zip(self.targets, job.sources, strict=True)}
        self._of_copies = {target for target, source in zip(self.targets, job.sources, strict=True) if source.remote is not None}
        self._in_place = job.output is None
        #: Places that may still have the tokenized values.
        self.still_there: list[str] = []
        self._lists = {
            name: Target(path) for name, path in ((CROSSWALK, job.crosswalk), (REJECTS, job.rejects)) if path is not None
        }
        try:
            self._places = {target: _followed(target.path) for target in [*self.targets, *self._lists.values()]}
        except ConfigError as error:
            raise InputsError(str(error)) from None

    def check(self, *, is_begun: bool = False) -> None:
        """Raises InputsError if an output would overwrite another one or a source, or if its folder does not exist.

        Raises LakeError if an output would be in a lake's table; OutputExists if it exists and ``force`` is not given.
        ``is_begun``: an earlier run left finished parts to resume from.
        """
        lakes, lists = Lakes(), set(self._lists.values())
        taken: dict[Hashable, set[str | None]] = {}
        for source in self._job.sources:
            taken.setdefault(file_key(resolved(source.place)), set()).add(table_key(source.table))
        sources = {key: set(tables) for key, tables in taken.items()}
        new = [*self._lists.values(), *([] if self._in_place else self.targets)]
        for target in new:
            place = self._places[target]
            key, table = file_key(place), None if isinstance(place, Url) else table_key(target.table)
            if isinstance(place, Path) and (self._job.lake is None or target in lists):  # else its folder is or becomes a table
                lakes.refuse_output(place)
            self._require_folder(target)
            require_own_schema(target.table, str(target))
            if overlap(sources.get(key, set()), table):
                raise InputsError(f"{target}: the output is the input: name another file")
            if overlap(taken.get(key, set()), table):
                raise InputsError(f"{target}: two outputs would be one file: name another one")
            taken.setdefault(key, set()).add(table)
            if isinstance(place, Path):
                self._check_file(target, place, is_begun)
        self._check_objects(new, is_begun)
        try:
            for target, place in self._places.items():
                if isinstance(place, Url):
                    continue
                if target.table is None:
                    require_replaceable(place)
                else:
                    self._require_fit(target, place)
        except ConfigError as error:
            raise InputsError(str(error)) from None

    def _require_folder(self, target: Target) -> None:
        """Raises InputsError if the named output's folder does not exist: a typing error must not create folders."""
        named = self._job.output if self._job.is_folder and target not in self._lists.values() else None
        place = named or target.path
        if isinstance(place, Path) and not place.absolute().parent.is_dir():
            raise InputsError(f"{target}: there is no folder {place.absolute().parent}: make it first, or name another one")

    def _check_file(self, target: Target, place: Path, is_begun: bool) -> None:
        if place.exists() and not place.is_file():
            raise InputsError(f"{target} is no regular file: name another one")
        if _exists(place, target.table, self._job.force) and not self._job.force:
            raise OutputExists((_APPEARED if is_begun else _EXISTS).format(target, "file"))

    def _check_objects(self, new: Sequence[Target], is_begun: bool) -> None:
        if self._in_place and any(isinstance(target.path, Url) and target.table is not None for target in self.targets):
            raise InputsError("a table of a DuckDB file in an object store is not replaced in place: name another output")
        urls = {place: target for target in new if isinstance(place := self._places[target], Url)}
        refuse_objects((), urls)
        if self._job.force and not any(target.table for target in urls.values()):
            return  # needs no permission to read
        for url, found in zip(urls, object_store.find_all(list(urls)), strict=True):
            if found is not None and urls[url].table is not None:
                raise OutputExists(f"{url} exists, and no table is put into an object that is there: name another one")
            if found is not None and not self._job.force:
                raise OutputExists((_APPEARED if is_begun else _EXISTS).format(url, "object"))

    def _require_fit(self, target: Target, place: Path) -> None:
        """Raises InputsError, or ConfigError, for a DuckDB file that a table must not go into: the file keeps owner and mode."""
        if not place.exists() or self._sources[target].resolve() == place:
            return
        require_not_planted(place)
        found = place.stat()
        others = found.st_mode & 0o077 & ~self._widest(target, found.st_gid)
        if others:
            before, after = (f"{stat.S_IMODE(mode):04o}" for mode in (found.st_mode, found.st_mode & ~others))
            words = f"others can get at that file (mode {before}), and not at {self._sources[target]}"
            raise InputsError(f"{target}: {words}: chmod {after} it first, or name another one")

    def require_within_reach(self, work: Path) -> None:
        """Raises InputsError for a target to which files in ``work`` cannot be linked, StoreError for one that takes no uploads.

        It tries each link, since links between two mounts fail even if both are of one file system.
        """
        require_writable(place for place in self._places.values() if isinstance(place, Url))
        probe = work / "probe"
        probe.touch()
        tried: set[Path] = set()
        for target in [*self._lists.values(), *self.targets]:
            place = self._places[target]
            if isinstance(place, Url):
                continue
            folder = next(each for each in place.parents if each.is_dir())
            if folder in tried or (target.table is not None and place.exists()):  # a table is written into its file
                continue
            tried.add(folder)
            trial = folder / f".{probe.name}.{secrets.token_hex(4)}.quorumvault"
            try:
                trial.hardlink_to(probe)
                trial.unlink()
            except OSError as error:
                if error.errno == errno.EXDEV:
                    raise InputsError(
                        f"{target} is on another file system than {work_path(self._job)}, where it is made: all outputs go to one"
                    ) from None
                if error.errno in (errno.EPERM, errno.EOPNOTSUPP):
                    raise InputsError(f"{target}: its file system has no hard links, which outputs get their names by") from None
                raise
        probe.unlink()

    def staged(self, folder: Path, number: int) -> Path:
        """Returns the file in which a source's output is assembled. It has the target's suffix, which tells DuckDB the format."""
        target = self.targets[number].path
        return folder / f"{number:06}{known_suffix(target) if isinstance(target, Url) else target.suffix}"

    @contextlib.contextmanager
    def uploads(self, folder: Path, *, replacing: bool) -> Iterator[Uploads]:
        """Yields the uploads of a run in a work folder. Uploads that are incomplete when the block ends are discarded."""
        uploads = Uploads(folder, exclusive=not (replacing or self._in_place))
        try:
            yield uploads
        finally:
            uploads.discard()

    def send(self, folder: Path, uploads: Uploads, untouched: Container[int] = ()) -> None:
        """Sends the staged files that become objects, so far invisibly."""
        uploads.send(_outgoing(self._staged(folder, untouched)))

    def publish(self, folder: Path, uploads: Uploads, *, replacing: bool, untouched: Container[int] = ()) -> None:
        """Gives every staged file its name. May be called again after an interruption at any instant.

        ``untouched``: the numbers of sources that stay as they are, without a staged file. Lists come first: once sources are
        replaced, what the lists say about them cannot be recovered. Raises RunError if a staged file is lost, and OutputExists if
        a target appeared meanwhile, unless ``replacing``.
        """
        staged = self._staged(folder, untouched)
        self.send(folder, uploads, untouched)
        for part in (staged[: len(self._lists)], staged[len(self._lists) :]):
            self._give_all(part, uploads, replacing or self._in_place)

    def _staged(self, folder: Path, untouched: Container[int]) -> list[tuple[Path, Target]]:
        """Returns the staged files and their targets, lists first. Raises RunError if a file is lost."""
        staged = [(folder / name, target) for name, target in self._lists.items()]
        staged += [(self.staged(folder, number), target) for number, target in enumerate(self.targets) if number not in untouched]
        for file, target in staged:
            if not file.exists():
                raise RunError(f"what was to be {target} is gone: remove {work_path(self._job)} to begin again")
        return staged

    def _give_all(self, staged: Sequence[tuple[Path, Target]], uploads: Uploads, replacing: bool) -> None:
        parents: set[Path] = set()
        for file, target in staged:
            if isinstance(place := self._places[target], Path):
                parents |= self._give(file, target, place, replacing)
        for parent in parents:
            sync_directory(parent)
        for url in uploads.complete(_outgoing(staged)):
            raise OutputExists(_APPEARED.format(url))

    def _give(self, staged: Path, target: Target, path: Path, replacing: bool) -> set[Path]:
        """Gives a staged file its target's name. Returns the folders with new names in them."""
        new = self._make_folders(target, path.parent)
        with opened_folder(path.parent) as folder, _opened(staged) as made:
            place = _Place(folder, path.name)
            is_given = place.is_same(made)
            if not is_given:
                self._allow(made, target, os.stat(folder))
            if not is_given and target.table is not None:
                is_given = place.link(made) or self._put_table(staged, path, target, replacing)
            elif not is_given and replacing:
                is_given = self._replace(place, made, target, staged, path)
            elif not is_given:
                is_given = place.link(made)
        if not is_given:
            raise OutputExists(_APPEARED.format(target))
        return {path.parent, *(each.parent for each in new)}

    def _put_table(self, staged: Path, path: Path, target: Target, replacing: bool) -> bool:
        from quorumvault.files.columnar.duckdb import put_table

        assert target.table is not None
        if replacing and self._job.operation == "tokenize":
            self.still_there.append(
                f"{path}: its free pages may have rows of a table that was replaced, values too: copy what is in it to a new "
                "file (COPY FROM DATABASE), and remove this one"
            )
        return put_table(staged, path, target.table, replacing=replacing)

    def _make_folders(self, target: Target, parent: Path) -> list[Path]:
        """Makes the missing folders of a target, and returns them."""
        # ``depth``: in a folder of outputs, the number of folders that the source's folder has too, from the innermost on.
        source, depth, output = self._sources.get(target), 0, self._job.output
        if source is not None and self._job.is_folder and isinstance(output, Path) and isinstance(target.path, Path):
            depth = len(target.path.parts) - len(output.parts)
        missing = [each for each in (parent, *parent.parents) if not each.exists()]
        for level, each in reversed(list(enumerate(missing))):
            like = source.parents[0 if target in self._of_copies else level] if source is not None and level < depth else None
            group = group_of_new(each.parent)
            with umask(self._umask), contextlib.suppress(FileExistsError), opened_folder(each.parent) as above:
                os.mkdir(each.name, 0o777 if like is None else _reach(like, group), dir_fd=above)
        return missing

    def _allow(self, made: int, target: Target, folder: os.stat_result) -> None:
        """Gives a staged file the group and the mode of a new output."""
        if folder.st_mode & stat.S_ISGID:
            with contextlib.suppress(PermissionError):  # this user is not in the group and cannot give a file to it
                os.fchown(made, -1, folder.st_gid)
        widest = self._widest(target, os.fstat(made).st_gid)
        set_mode(made, new_mode(self._job, widest, self._umask) if target in self._sources else 0o600)

    def _widest(self, target: Target, group: int) -> int:
        """Returns the widest mode that an output may have, in a group. Lists have no values, so any mode."""
        source = self._sources.get(target)
        return 0o777 if source is None else _reach(source, group)

    def _replace(self, place: _Place, made: int, target: Target, staged: Path, path: Path) -> bool:
        require_replaceable(path)
        with contextlib.suppress(FileNotFoundError):
            before = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
            if stat.S_ISREG(before.st_mode):  # else a symbolic link was put there; the link itself is replaced
                take_after(made, path, before, self._widest(target, before.st_gid))
        second = staged.with_name(f"{staged.name}.second")
        second.unlink(missing_ok=True)
        second.hardlink_to(staged)
        os.replace(second, place.name, dst_dir_fd=place.folder)
        return True


@contextlib.contextmanager
def _opened(staged: Path) -> Iterator[int]:
    """Yields a descriptor of a file that this run has made."""
    descriptor = os.open(staged, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _reach(source: Path, group: int) -> int:
    try:
        return reach(source, group)
    except FileNotFoundError:  # a resumed run gives names, and the source is gone meanwhile
        return 0o700


def new_mode(job: Job, widest: int, umask: int) -> int:
    """Returns the mode of a new output: 0600 for values; for tokens, what the umask and the input allow."""
    return 0o600 if job.operation == "detokenize" else 0o600 | (0o066 & widest & ~umask)


def _targets(job: Job) -> Iterator[Target]:
    for source in job.sources:
        if job.output is None:
            yield Target(source.place, source.table)
        elif job.is_folder:
            folder, name = job.output, source.relative
            yield Target(folder.below(*name.parts) if isinstance(folder, Url) else folder / name, source.table)
        else:
            yield Target(job.output, job.table)


def _followed(place: Place) -> Place:
    return place if isinstance(place, Url) else followed(place)


def _outgoing(staged: Sequence[tuple[Path, Target]]) -> list[Outgoing]:
    return [Outgoing(file, target.path) for file, target in staged if isinstance(target.path, Url)]


def _exists(path: Path, table: str | None, replacing: bool) -> bool:
    if table is None or not path.exists():
        return path.exists()
    from quorumvault.files.columnar.duckdb import has_table

    return has_table(path, table, replacing=replacing)
