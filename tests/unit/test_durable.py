"""Writing a file survives a crash or an error at any step: afterwards the old file or the new one is there, whole.

Each system call on the way fails in turn. After a crash nothing more is called, and what was not synced is lost: an unsynced
file keeps half of its content.
"""

import contextlib
import errno
import io
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from quorumvault import durable
from quorumvault.config.api_keys import read_keyfile
from quorumvault.config.key_changes import create_key, new_keyfile, revoke_key
from quorumvault.errors import StorageFailed
from quorumvault.model import NODE_NAMES
from quorumvault.protocol.views import Mode, first_view
from quorumvault.server.storage.data_directory import mark_untrusted, why_untrusted
from quorumvault.server.storage.disk_identity import DiskIdentity, write_identity

OLD, NEW = b"old " * 5000, b"new " * 7000
NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)
CALLS = ("open", "unlink", "fchown", "fchmod", "fsync", "link", "replace", "write")


class Crash(BaseException):
    """The process ends at once, without any clean-up."""


class Faults:
    """Counts steps, each a system call, and makes the one with number ``at`` fail: by a crash, or as on a full disk."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, *, crash: bool) -> None:
        self._at, self._crash = at, crash
        self.failed = False
        self.steps: list[str] = []
        self.unsynced: set[Path] = set()
        for name in CALLS:
            patch.setattr(os, name, self._failing(name, getattr(os, name)))
        patch.setattr(os, "fdopen", lambda descriptor, mode: io.BufferedWriter(_Raw(self, descriptor)))

    def step(self, name: str) -> None:
        is_next = len(self.steps) == self._at
        self.steps.append(name)
        if is_next or (self.failed and self._crash):
            self.failed = True
            raise Crash if self._crash else OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _failing(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            self.step(name)
            if name == "replace" or (name == "link" and self.unsynced):
                assert not self.unsynced, "a file takes its name before it is synced"
            if name == "fsync":
                self.unsynced.discard(path_of(arguments[0]))
            return real(*arguments, **named)

        return call

    def lose_what_is_not_synced(self) -> None:
        for path in self.unsynced:
            if path.exists():
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class _Raw(io.FileIO):
    """Writes half of the data before it fails."""

    def __init__(self, faults: Faults, descriptor: int) -> None:
        super().__init__(descriptor, "wb")
        self._faults = faults

    def write(self, data: Any, /) -> int:
        self._faults.unsynced.add(path_of(self.fileno()))
        half = super().write(bytes(data)[: len(data) // 2])
        self._faults.step("write")
        return half + super().write(bytes(data)[half:])


def path_of(descriptor: object) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{descriptor}"))


def outcomes(
    folder: Path, prepare: Callable[[Path], object], change: Callable[[Path], object], *, crash: bool, is_named: bool = True
) -> list[Path]:
    """Let ``change(place)`` fail at each of its steps in turn, each time in a new ``place`` that was prepared.

    Returns the places in the order of the steps; the last is that of the change that did not fail.
    """
    places: list[Path] = []
    failed = True
    while failed:
        place = folder / str(len(places))
        place.mkdir(parents=True)
        prepare(place)
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, len(places), crash=crash)
            try:
                change(place)
            except (Crash, OSError, StorageFailed):
                assert faults.failed
        faults.lose_what_is_not_synced()
        failed = faults.failed
        places.append(place)
    assert not is_named or faults.steps[-2:] == ["open", "fsync"], "the directory is synced last"
    return places


def _replace(place: Path) -> None:
    durable.replace(place / "file", NEW)


def _replacing(place: Path) -> None:
    with durable.replacing(place / "file") as file:
        file.write(NEW)


def _appearing(place: Path) -> None:
    with durable.replacing(place / "file", exclusive=True) as file:
        file.write(NEW)


def _identity(mode: Mode) -> Callable[[Path], None]:
    view = first_view({node: node.encode() * 8 for node in NODE_NAMES})
    identity = DiskIdentity("cluster", "n1", b"n1" * 8, 1, mode, view)
    return lambda place: write_identity(place / "file", identity)


def _key(place: Path) -> None:
    new_keyfile(place / "file")
    create_key(place / "file", "clinic", now=NOW, entropy=bytes, new_owner=True)


def _revoked(place: Path) -> None:
    (key,) = read_keyfile(place / "file").keys
    revoke_key(place / "file", key.id, now=NOW)


def _nothing(place: Path) -> None:
    pass


REPLACEMENTS = {
    "replace": (lambda place: (place / "file").write_bytes(OLD), _replace),
    "replacing": (lambda place: (place / "file").write_bytes(OLD), _replacing),
    "first": (_nothing, _replace),
    "first of a person": (_nothing, _replacing),
    "that replaces nothing": (_nothing, _appearing),
    "a disk's identity": (_identity(Mode.JOINING), _identity(Mode.ACTIVE)),
    "a key file": (_key, _revoked),
}


def content(place: Path) -> bytes | None:
    path = place / "file"
    return path.read_bytes() if path.exists() else None


@pytest.mark.parametrize("crash", [True, False], ids=["crash", "full disk"])
@pytest.mark.parametrize("what", REPLACEMENTS)
def test_a_file_is_the_old_one_or_the_new_one_whole(tmp_path: Path, what: str, crash: bool) -> None:
    prepare, change = REPLACEMENTS[what]
    places = outcomes(tmp_path, prepare, change, crash=crash)
    old, new = content(places[0]), content(places[-1])
    assert len(places) > 5
    assert new != old
    found = [content(place) for place in places]
    assert found == sorted(found, key=lambda each: each == new)
    assert set(found) == {old, new}
    for place in places:
        if not crash:
            assert set(place.iterdir()) <= {place / "file"}
        with contextlib.suppress(FileExistsError):  # from a change that replaces nothing
            change(place)  # whatever was left does not get in the way
        assert content(place) is not None


def _noted(place: Path) -> str | None:
    untrusted = why_untrusted(place)
    return None if untrusted is None else untrusted.words


@pytest.mark.parametrize("crash", [True, False], ids=["crash", "full disk"])
def test_a_disk_that_is_untrusted_stays_untrusted_for_one_whole_reason(tmp_path: Path, crash: bool) -> None:
    """A second reason replaces the first. Without a first reason, a full disk still gets the mark; a crash may leave none."""
    again = outcomes(
        tmp_path, lambda place: mark_untrusted(place, "old"), lambda place: mark_untrusted(place, "new"), crash=crash
    )
    assert {_noted(place) for place in again} == {"old", "new"}
    first = outcomes(tmp_path / "first", lambda place: None, lambda place: mark_untrusted(place, "new"), crash=crash)
    assert {_noted(place) for place in first} == ({None, "new"} if crash else {"", "new"})


@pytest.mark.parametrize("make", [lambda path: durable.create(path, NEW), lambda path: durable.copy(path.parent / "old", path)])
def test_a_new_file_is_private_and_whole_or_not_there_after_an_error(tmp_path: Path, make: Callable[[Path], None]) -> None:
    places = outcomes(
        tmp_path, lambda place: (place / "old").write_bytes(NEW), lambda place: make(place / "file"), crash=False, is_named=False
    )
    assert {content(place) for place in places} == {None, NEW}
    assert (places[-1] / "file").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        make(places[-1] / "file")
    assert content(places[-1]) == NEW


@pytest.mark.parametrize("crash", [True, False], ids=["crash", "full disk"])
def test_what_a_file_is_extended_by_is_behind_what_it_had(tmp_path: Path, crash: bool) -> None:
    def prepare(place: Path) -> None:
        (place / "file").write_bytes(OLD + b"torn")

    places = outcomes(tmp_path, prepare, lambda place: durable.extend(place / "file", len(OLD), NEW), crash=crash)
    assert content(places[-1]) == OLD + NEW
    for place in places:
        assert (content(place) or b"").startswith(OLD)
        durable.extend(place / "file", len(OLD))
        assert content(place) == OLD


def test_a_person_s_file_keeps_its_mode_and_a_new_one_has_that_which_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for mode, widest, kept in ((None, 0o777, 0o640), (0o604, 0o777, 0o604), (0o777, 0o740, 0o740)):
        if mode is not None:
            path.chmod(mode)
        with durable.replacing(path, mode=0o640, widest=widest) as file:
            file.write(NEW)
        assert stat.S_IMODE(path.stat().st_mode) == kept


def test_an_error_of_the_one_who_writes_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    with pytest.raises(ZeroDivisionError), durable.replacing(path) as file:
        file.write(b"%d" % (1 // 0))
    assert [(each, each.read_bytes()) for each in tmp_path.iterdir()] == [(path, OLD)]


@pytest.mark.parametrize("lacks", [(), ("unnamed",), ("unnamed", "links")], ids=str)
def test_what_replaces_nothing_leaves_what_has_appeared_and_nothing_else(
    lacks: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This also holds on file systems without unnamed files or without hard links."""
    if lacks:
        monkeypatch.setattr(durable, "_UNNAMED", os.O_WRONLY | os.O_DIRECTORY)  # as on a kernel that does not know the flag
    if "links" in lacks:
        monkeypatch.setattr(os, "link", Mock(side_effect=OSError(errno.EPERM, os.strerror(errno.EPERM))))
    path = tmp_path / "file"
    with durable.replacing(path, exclusive=True) as file:
        file.write(OLD)
    with pytest.raises(FileExistsError), durable.replacing(path, exclusive=True) as file:
        file.write(NEW)
    assert [(each, each.read_bytes()) for each in tmp_path.iterdir()] == [(path, OLD)]
    with durable.replacing(path) as file:
        file.write(NEW)
        drafts = [each for each in tmp_path.iterdir() if each != path]
        assert len(drafts) == bool(lacks)
        durable.abandon_drafts()
        assert list(tmp_path.iterdir()) == [path]
        for draft in drafts:
            draft.write_bytes(NEW)
    assert [(each, each.read_bytes()) for each in tmp_path.iterdir()] == [(path, NEW)]
