"""Answers to texts. A run asks about each distinct text once, in however many batches, parts and files the text is.

    VaultLookup   asks the vault about the values of one batch together
    TextAnswers   caches the answers of a Lookup on disk, in SQLite, which comes with Python: files of text need no extra
    TokenEpoch    the rule for every cache of tokens, columnar/answers.py (DuckDB, whole columns) included: one epoch

The files of answers hold values. They are in the spill folder and are not synced, since they do not outlive the process.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeAlias

import msgspec

from quorumvault.client import Client, TokenResult
from quorumvault.crypto.tokens import parse_token
from quorumvault.errors import EpochMoved, RequestError
from quorumvault.files.job import Job
from quorumvault.files.outcomes import FAULTS, PASSING, CellStatus

MOVED_WORDS: Final = "the epoch was rotated each time that a part was made: go on with --resume when that is over"
#: SQLite's page cache, in KiB.
_CACHE = 64 << 10

CellValue: TypeAlias = "str | msgspec.Raw"


class CellAnswer(NamedTuple):
    """The answer to one value: a status, and the replacement if the status is ``ok`` or ``there``.

    The status is None if the vault was not asked about the value, since another value of the call is faulty.
    """

    status: CellStatus | None
    replacement: CellValue | None = None

    def __repr__(self) -> str:
        """Leaves out the replacement, which is a value or a token."""
        return f"CellAnswer({self.status!r})"


class Lookup(Protocol):
    def __call__(self, values: Sequence[CellValue]) -> list[CellAnswer]:
        """Returns an answer to each value, in order. Called from several threads."""


class VaultLookup:
    """Asks the vault. ``look_ups`` adds up the distinct values of all calls that the vault answered.

    A value that cannot be tokenized gets its fault as the answer. The other values of its call are asked about if the job has a
    list of rejects.
    """

    def __init__(self, job: Job, vault: Client) -> None:
        self._operation = job.operation
        self._tolerant = job.rejects is not None
        self._vault = vault
        self._lock = threading.Lock()
        self.look_ups = 0

    def __call__(self, values: Sequence[CellValue]) -> list[CellAnswer]:
        match self._operation:
            case "tokenize":
                return self._tokenize(values)
            case "detokenize":
                found = self._vault.detokenize(_texts(values))
                answers = [CellAnswer(each.status, msgspec.Raw(each.json) if each.found else None) for each in found]
            case "retokenize":
                moved = self._vault.retokenize(_texts(values))
                answers = [_moved(text, each) for text, each in zip(_texts(values), moved, strict=True)]
        self._count(values)
        return answers

    def _count(self, values: Sequence[CellValue]) -> None:
        distinct = len({bytes(value) if isinstance(value, msgspec.Raw) else value for value in values})
        with self._lock:
            self.look_ups += distinct

    def _tokenize(self, values: Sequence[CellValue]) -> list[CellAnswer]:
        answers = [CellAnswer(None)] * len(values)
        left = list(range(len(values)))
        while left:
            try:
                tokens = self._vault.tokenize([values[place] for place in left])
            except RequestError as error:
                faults = {left[item.index]: FAULTS[item.code] for item in error.errors if item.code in FAULTS}
                if not faults:
                    raise
                for place, fault in faults.items():
                    answers[place] = CellAnswer(fault)
                left = [place for place in left if place not in faults] if self._tolerant else []
                continue
            for place, token in zip(left, tokens, strict=True):
                answers[place] = CellAnswer("ok", token)
            self._count(values)
            break
        return answers


def _moved(text: str, result: TokenResult) -> CellAnswer:
    if not result.found:
        return CellAnswer(result.status)
    return CellAnswer("there" if result.token == text else "ok", result.token)


def _texts(values: Sequence[CellValue]) -> list[str]:
    """Returns the strings among values: tokens are strings, and no other value is looked up as a token."""
    return [value for value in values if isinstance(value, str)]


class AnswerCache(Protocol):
    """The cached answers of one run: TextAnswers, or columnar/answers.py for whole columns."""

    def forget(self) -> None:
        """Clears the cache, whose tokens are of an older epoch."""

    def close(self) -> None: ...


class TokenEpoch:
    """The epoch of the cached tokens, 0 while there are none. It only grows, until the cache is cleared."""

    def __init__(self, forget: Callable[[], None]) -> None:
        self.current = 0
        self._forget = forget

    def note(self, token: object) -> None:
        """Notes an answer. Raises EpochMoved for a token of another epoch; if that is newer, clears the cache first."""
        parsed = parse_token(token) if isinstance(token, str) else None
        if parsed is None:
            return
        before, self.current = self.current, max(self.current, parsed[0])
        if before and parsed[0] != before:
            if parsed[0] > before:
                self._forget()
            raise EpochMoved(MOVED_WORDS)


class TextAnswers:
    """A Lookup that caches the answers of another one. While one thread asks about a value, other threads wait for its answer.

    With ``one_epoch`` the answers are tokens of one epoch: each thread that holds tokens of an older epoch raises EpochMoved.
    """

    def __init__(self, folder: Path, look_up: Lookup, *, one_epoch: bool) -> None:
        self._look_up = look_up
        self._one_epoch = one_epoch
        self._epoch = TokenEpoch(self._clear)
        self._asking: dict[str, Future[CellAnswer]] = {}
        self._lock = threading.Lock()
        self._con = sqlite3.connect(folder / "answers.sqlite", check_same_thread=False, isolation_level=None)
        for setting in ("journal_mode = off", "synchronous = off", "temp_store = memory", f"cache_size = -{_CACHE}"):
            self._con.execute(f"pragma {setting}")
        self._con.execute("create table answers (value text primary key, status text, replacement) without rowid")

    def close(self) -> None:
        with self._lock:  # after Ctrl-C, other threads may still use it
            self._con.close()

    def forget(self) -> None:
        with self._lock:
            self._epoch.current = 0
            self._clear()

    def _clear(self) -> None:
        self._con.execute("delete from answers")

    def __call__(self, values: Sequence[CellValue]) -> list[CellAnswer]:
        keys = [_key(value) for value in values]
        distinct = dict(zip(keys, values, strict=True))
        with self._lock:
            epoch = self._epoch.current
            answers = self._known(distinct)
            unknown = distinct.keys() - answers.keys()
            others = {key: self._asking[key] for key in unknown if key in self._asking}
            mine: list[str] = [key for key in distinct if key in unknown and key not in others]
            promises: dict[str, Future[CellAnswer]] = {key: Future() for key in mine}
            self._asking.update(promises)
        answers.update(self._ask([distinct[key] for key in mine], promises))
        # This thread's own values come first, so that no two threads wait for each other.
        answers.update({key: promise.result() for key, promise in others.items()})
        if self._one_epoch and epoch and epoch != self._epoch.current:
            raise EpochMoved(MOVED_WORDS)
        return [answers[key] for key in keys]

    def _ask(self, values: list[CellValue], promises: dict[str, Future[CellAnswer]]) -> dict[str, CellAnswer]:
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

    def _known(self, keys: dict[str, CellValue]) -> dict[str, CellAnswer]:
        asked = msgspec.json.encode(list(keys)).decode()
        rows = self._con.execute(
            "select value, status, replacement from answers where value in (select value from json_each(?))", [asked]
        )
        return {key: CellAnswer(status, _replacement(stored)) for key, status, stored in rows}

    def _remember(self, found: dict[str, CellAnswer]) -> None:
        if self._one_epoch:
            self._epoch.note(next((answer.replacement for answer in found.values() if answer.replacement is not None), None))
        rows = [
            (key, answer.status, _stored(answer.replacement))
            for key, answer in found.items()
            if answer.status not in (None, *PASSING)
        ]
        self._con.execute("begin")
        self._con.executemany("insert into answers values (?, ?, ?)", rows)
        self._con.execute("commit")
        for key in found:
            del self._asking[key]


def _key(value: CellValue) -> str:
    """Returns the key of a value, its JSON text, so that "1" and 1 differ."""
    return (bytes(value) if isinstance(value, msgspec.Raw) else msgspec.json.encode(value)).decode()


def _stored(replacement: CellValue | None) -> str | bytes | None:
    return bytes(replacement) if isinstance(replacement, msgspec.Raw) else replacement


def _replacement(stored: str | bytes | None) -> CellValue | None:
    return msgspec.Raw(stored) if isinstance(stored, bytes) else stored
