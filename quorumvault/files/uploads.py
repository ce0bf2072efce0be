"""Outputs that go to object stores. A run first sends all but the last piece of each object, then completes one after another.

An upload is invisible until it is completed. The work folder notes which uploads were begun and which objects appeared. A run
that resumes after a kill discards abandoned uploads, which S3 would keep and charge for, and sends only the missing objects. If
an object is there without a note, the run compares it with the output: a kill may have come between completion and note.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from quorumvault import durable
from quorumvault.files import object_store
from quorumvault.files.new_object import NewObject, abandon
from quorumvault.files.object_store import StoreError
from quorumvault.files.urls import Url, url_of

_NOTES: Final = "uploads.jsonl"


class Outgoing(NamedTuple):
    """A staged file and its destination."""

    file: Path
    url: Url


class _Note(msgspec.Struct, frozen=True):
    """A note about an object: the id of an upload that began, or None if the object appeared."""

    url: str
    upload: str | None = None


class Uploads:
    """The uploads of one run. Call ``discard`` at its end, whatever happened."""

    def __init__(self, folder: Path, *, exclusive: bool) -> None:
        """``exclusive``: existing objects stay."""
        self._notes = folder / _NOTES
        self._exclusive = exclusive
        self._lock = threading.Lock()
        self._size, notes = _read(self._notes)
        self._done = {note.url for note in notes if note.upload is None}
        self._under_way: dict[Url, NewObject] = {}
        self._is_ending = False

    def send(self, outgoing: Sequence[Outgoing]) -> None:
        """Sends all but the last piece of each file that is larger than a block. No object appears. Raises StoreError."""
        waiting = [each for each in outgoing if each.url not in self._under_way and each.url.text not in self._done]
        self._at_once(self._send, waiting)

    def _send(self, each: Outgoing) -> None:
        size = each.file.stat().st_size
        made = NewObject(each.url, exclusive=self._exclusive, size=size)
        with self._lock:
            self._under_way[each.url] = made
        if size > made.block:
            made.begin()
            if made.upload_id is not None:
                self._note(_Note(each.url.text, made.upload_id))
        with each.file.open("rb") as source:
            while size - source.tell() > made.block and not self._is_ending:
                made.write(source.read(made.block))

    def complete(self, outgoing: Sequence[Outgoing]) -> list[Url]:
        """Completes all objects. Returns those whose name another object has and keeps. May be repeated, even after a kill."""
        refused: list[Url] = []

        def complete(each: Outgoing) -> None:
            if not self._complete(each):
                refused.append(each.url)

        self._at_once(complete, [each for each in outgoing if each.url.text not in self._done])
        return refused

    def _complete(self, each: Outgoing) -> bool:
        made = self._under_way[each.url]
        with each.file.open("rb") as source:
            source.seek(max(0, each.file.stat().st_size - 1) // made.block * made.block)
            made.write(source.read())
        if not made.complete() and not _is_same(each):
            return False
        self._note(_Note(each.url.text))
        return True

    def _note(self, note: _Note) -> None:
        with self._lock:
            line = msgspec.json.encode(note) + b"\n"
            durable.extend(self._notes, self._size, line)  # overwrites a partial line that a kill left
            self._size += len(line)

    def _at_once(self, work: Callable[[Outgoing], None], outgoing: Sequence[Outgoing]) -> None:
        pool = ThreadPoolExecutor(object_store.AT_ONCE, thread_name_prefix="quorumvault")
        try:
            for done in [pool.submit(work, each) for each in outgoing]:
                done.result()
        except BaseException:
            self._is_ending = True
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def discard(self) -> None:
        """Discards incomplete uploads."""
        for made in self._under_way.values():
            made.discard()
        self._under_way.clear()


def _is_same(each: Outgoing) -> bool:
    """Returns whether an object has the bytes of the staged file."""
    found = object_store.find(each.url)
    if found is None or found.size != each.file.stat().st_size:
        return False
    with object_store.reading(each.url) as there, each.file.open("rb") as file:
        while part := file.read(object_store.BLOCK_BYTES):
            if there.read(len(part)) != part:
                return False
    return True


def abandon_all(folder: Path) -> None:
    """Discards the uploads noted in a killed run's work folder. Where that fails, the store's own rules have to clean up."""
    notes = _read(folder / _NOTES)[1]
    done = {note.url for note in notes if note.upload is None}
    for note in notes:
        url = url_of(note.url)
        if note.upload is not None and note.url not in done and url is not None:
            with contextlib.suppress(StoreError, ModuleNotFoundError):
                abandon(url, note.upload)


def _read(path: Path) -> tuple[int, list[_Note]]:
    """Returns the number of bytes of all complete lines, and their notes."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return 0, []
    whole = content[: content.rfind(b"\n") + 1]
    return len(whole), [msgspec.json.decode(line, type=_Note) for line in whole.splitlines()]
