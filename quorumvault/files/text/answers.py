"""Answers to values, remembered on disk: each distinct value is asked about once, however many batches, parts and files have it.

In SQLite, which Python brings along: files of text need no extra. A value that a thread is asking about is waited for by the
others. Values are in the file: it lives in the spill folder, and nothing of it is synced, since it does not outlive the process.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final

import msgspec

from quorumvault.crypto.tokens import parse_token
from quorumvault.errors import EpochMoved
from quorumvault.files.statuses import MOVED_WORDS
from quorumvault.files.text.rows import Answer, Lookup, Value

#: What stays as it is when it is asked for again.
_LASTING: Final = ("ok", "not_found", "collision")
#: KiB of pages in memory.
_CACHE = 64 << 10


class Remembered:
    """A Lookup that asks another one for what it does not know.

    With ``one_epoch``, answers are tokens of one epoch: when newer ones come, the older are forgotten and EpochMoved is raised,
    in each thread that holds some.
    """

    def __init__(self, folder: Path, look_up: Lookup, *, one_epoch: bool) -> None:
        self._look_up = look_up
        self._one_epoch = one_epoch
        self._epoch = 0
        self._asking: dict[str, Future[Answer]] = {}
        self._lock = threading.Lock()
        self._con = sqlite3.connect(folder / "answers.sqlite", check_same_thread=False, isolation_level=None)
        for setting in ("journal_mode = off", "synchronous = off", "temp_store = memory", f"cache_size = -{_CACHE}"):
            self._con.execute(f"pragma {setting}")
        self._con.execute("create table answers (value text primary key, status text, replacement) without rowid")

    def close(self) -> None:
        self._con.close()

    def forget(self) -> None:
        with self._lock:
            self._epoch = 0
            self._con.execute("delete from answers")

    def __call__(self, values: Sequence[Value]) -> list[Answer]:
        keys = [_key(value) for value in values]
        distinct = dict(zip(keys, values, strict=True))
        with self._lock:
            epoch = self._epoch
            answers = self._known(distinct)
            unknown = distinct.keys() - answers.keys()
            others = {key: self._asking[key] for key in unknown if key in self._asking}
            mine: list[str] = [key for key in distinct if key in unknown and key not in others]
            promises: dict[str, Future[Answer]] = {key: Future() for key in mine}
            self._asking.update(promises)
        answers.update(self._ask([distinct[key] for key in mine], promises))
        # One's own first: so no two threads wait for each other.
        answers.update({key: promise.result() for key, promise in others.items()})
        if self._one_epoch and epoch and epoch != self._epoch:
            raise EpochMoved(MOVED_WORDS)
        return [answers[key] for key in keys]

    def _ask(self, values: list[Value], promises: dict[str, Future[Answer]]) -> dict[str, Answer]:
        if not values:
            return {}
        try:
            found = dict(zip(promises, self._look_up(values), strict=True))
            with self._lock:
                self._remember(found)
        except BaseException as error:
            with self._lock:
                for key in promises:
                    del self._asking[key]
            for promise in promises.values():
                promise.set_exception(error)
            raise
        for key, answer in found.items():
            promises[key].set_result(answer)
        return found

    def _known(self, keys: dict[str, Value]) -> dict[str, Answer]:
        asked = msgspec.json.encode(list(keys)).decode()
        rows = self._con.execute(
            "select value, status, replacement from answers where value in (select value from json_each(?))", [asked]
        )
        return {key: Answer(status, _replacement(stored)) for key, status, stored in rows}

    def _remember(self, found: dict[str, Answer]) -> None:
        if self._one_epoch:
            self._check_epoch(found)
        rows = [(key, answer.status, _stored(answer.replacement)) for key, answer in found.items() if answer.status in _LASTING]
        self._con.execute("begin")
        self._con.executemany("insert into answers values (?, ?, ?)", rows)
        self._con.execute("commit")
        for key in found:
            del self._asking[key]

    def _check_epoch(self, found: dict[str, Answer]) -> None:
        token = next((answer.replacement for answer in found.values() if answer.status == "ok"), None)
        parsed = parse_token(token) if isinstance(token, str) else None
        if parsed is None:
            return
        before, self._epoch = self._epoch, max(self._epoch, parsed[0])
        if before and parsed[0] != before:
            if parsed[0] > before:
                self._con.execute("delete from answers")
            raise EpochMoved(MOVED_WORDS)


def _key(value: Value) -> str:
    """JSON text: so "1" and 1 are two."""
    return (bytes(value) if isinstance(value, msgspec.Raw) else msgspec.json.encode(value)).decode()


def _stored(replacement: Value | None) -> str | bytes | None:
    return bytes(replacement) if isinstance(replacement, msgspec.Raw) else replacement


def _replacement(stored: str | bytes | None) -> Value | None:
    return msgspec.Raw(stored) if isinstance(stored, bytes) else stored
