"""Answers to texts, cached on disk in DuckDB: a run asks about each distinct text once, in however many parts and files it is.

    distinct texts of a chunk  -> join with the answers -> the unknown ones -> vault (analytics/arrow.py) -> the answers

The database and what DuckDB spills are files in the spill folder. DuckDB's memory is bounded.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quorumvault.analytics.arrow import look_up
from quorumvault.client import Client
from quorumvault.crypto.tokens import BEGINNING, parse_tokens
from quorumvault.errors import RequestError
from quorumvault.files.answers import TokenEpoch
from quorumvault.files.job import CellCounts, Job
from quorumvault.files.outcomes import FAULTS, PASSING, STATUSES

#: The most unknown texts to ask about together: they become Python objects, and each 10,000 take a request.
_ASK_ROWS: Final = 200_000
#: DuckDB's memory limit. The rest of the process works on one chunk of a column at a time.
MEMORY_LIMIT: Final = "256MB"
CODE: Final = {status: code for code, status in enumerate(STATUSES)}
_PASSING: Final = pa.array([CODE[status] for status in PASSING], pa.uint8())
_NAMES: Final = pa.array(STATUSES)


class ColumnAnswer(NamedTuple):
    """Answers to texts: results (large_utf8, null unless the status is ``ok``), and codes (uint8, positions in STATUSES)."""

    results: Any
    codes: Any


def connect(spill: Path) -> duckdb.DuckDBPyConnection:
    """Opens a database of the run's own, which writes nowhere else."""
    settings: dict[str, Any] = {
        "memory_limit": MEMORY_LIMIT,
        "temp_directory": str(spill / "duckdb"),
        "preserve_insertion_order": True,
        "autoinstall_known_extensions": False,
    }
    return duckdb.connect(str(spill / "answers.duckdb"), config=settings)


class ColumnAnswers:
    """The answers of one run, used by one thread. Their tokens have one epoch: TokenEpoch raises EpochMoved."""

    def __init__(self, job: Job, vault: Client, con: duckdb.DuckDBPyConnection) -> None:
        self._operation = job.operation
        self._nulls = pa.array(job.dialect.nulls, pa.large_utf8())
        self._vault = vault
        self._con = con
        self.look_ups = 0
        #: True if the answers are tokens.
        self._one_epoch = job.operation != "detokenize"
        self._epoch = TokenEpoch(self._clear)
        con.execute("create table answers (text varchar, result varchar, code utinyint)")

    def note_epoch(self, counts: CellCounts) -> int | None:
        """Adds the epoch of the tokens among the counted cells to ``counts``, and returns it; None if there are no tokens."""
        has_tokens = counts.there or any(counts.values.values())
        counts.epochs = [self._epoch.current] if self._epoch.current and has_tokens else []
        return max(counts.epochs, default=None)

    def of(self, texts: Any) -> ColumnAnswer:
        """Returns the answers to ``texts``: distinct, a large_utf8 array without nulls."""
        asked = pa.table({"text": texts, "place": pa.array(np.arange(len(texts)))})
        with registered(self._con, "asked", asked):
            known = self._con.sql("select place, result, code from asked join answers using (text)").to_arrow_table()
        places = known.column("place").to_numpy()
        unknown = np.ones(len(texts), bool)
        unknown[places] = False
        fresh = np.nonzero(unknown)[0]
        unknown_texts = texts.take(pa.array(fresh))
        parts = [self._ask(unknown_texts.slice(start, _ASK_ROWS)) for start in range(0, len(fresh), _ASK_ROWS)]
        order = np.empty(len(texts), np.int64)
        order[places] = np.arange(len(places))
        order[fresh] = len(places) + np.arange(len(fresh))
        results = pa.concat_arrays(
            [*known.column("result").cast(pa.large_utf8()).chunks, *(part.results for part in parts), _NOTHING.results]
        )
        codes = pa.concat_arrays([*known.column("code").chunks, *(part.codes for part in parts), _NOTHING.codes])
        return ColumnAnswer(results.take(pa.array(order)), codes.take(pa.array(order)))

    def _ask(self, texts: Any) -> ColumnAnswer:
        answered = self._tokenize(texts) if self._operation == "tokenize" else self._look_up(texts)
        if self._one_epoch:
            self._note_epoch(answered)
        if self._operation == "retokenize":
            stays = pc.equal(texts, answered.results).fill_null(False)
            there = pc.if_else(stays, pa.scalar(CODE["there"], pa.uint8()), answered.codes)
            answered = answered._replace(codes=there)
        fresh = pa.table({"text": texts, "result": answered.results, "code": answered.codes})
        with registered(self._con, "fresh", fresh.filter(pc.invert(pc.is_in(answered.codes, _PASSING)))):
            self._con.execute("insert into answers from fresh")
        return answered

    def _tokenize(self, texts: Any) -> ColumnAnswer:
        """Tokenizes texts. Leaves out values that no node would take, and resends the rest without values that a node refused."""
        is_token = np.array([parsed is not None for parsed in parse_tokens(texts.to_pylist())], bool)
        too_large = pc.greater(pc.binary_length(texts), self._vault.limits().value_bytes).to_numpy(zero_copy_only=False)
        codes = np.where(is_token, CODE["already_token"], np.where(too_large, CODE["too_large"], CODE["ok"])).astype(np.uint8)
        codes[pc.is_in(texts, self._nulls).to_numpy(zero_copy_only=False)] = CODE["null"]
        before = self.look_ups
        while True:
            fit = pa.array(codes == CODE["ok"])
            try:
                tokens = self._exchange(texts.filter(fit)).results
                break
            except RequestError as error:
                faults = {item.index: CODE[FAULTS[item.code]] for item in error.errors if item.code in FAULTS}
                if not faults:
                    raise
                codes[np.nonzero(codes == CODE["ok"])[0][list(faults)]] = list(faults.values())
                self.look_ups = before
        return ColumnAnswer(pc.replace_with_mask(pa.nulls(len(texts), pa.large_utf8()), fit, tokens), pa.array(codes))

    def _look_up(self, texts: Any) -> ColumnAnswer:
        answered = _with_damaged(texts, self._exchange(texts))
        untexted = np.nonzero(answered.codes.to_numpy(zero_copy_only=False) == len(STATUSES))[0]
        if not len(untexted):
            return answered
        # A column of text has no place for numbers and booleans, so their JSON texts are written.
        places = pa.array(untexted)
        found = self._vault.detokenize(texts.take(places).to_pylist())
        values = [result.json.decode() if result.found else None for result in found]
        mask = np.zeros(len(texts), bool)
        mask[untexted] = True
        results = pc.replace_with_mask(answered.results, pa.array(mask), pa.array(values, pa.large_utf8()))
        return ColumnAnswer(results, pc.replace_with_mask(answered.codes, pa.array(mask), pa.scalar(CODE["ok"], pa.uint8())))

    def _exchange(self, texts: Any) -> ColumnAnswer:
        results, codes = [_NOTHING.results], [_NOTHING.codes]
        for batch in look_up(self._vault, self._operation, [texts], strict=False):
            results.append(batch.column("result"))
            found = pc.index_in(batch.column("status"), value_set=_NAMES).fill_null(len(STATUSES))
            codes.append(found.cast(pa.uint8()))
            self.look_ups += len(found) - pc.sum(pc.equal(found, CODE["not_token"])).as_py()
        return ColumnAnswer(pa.concat_arrays(results), pa.concat_arrays(codes))

    def _note_epoch(self, answered: ColumnAnswer) -> None:
        first = pc.index(answered.codes, pa.scalar(CODE["ok"], pa.uint8())).as_py()
        if first >= 0:
            self._epoch.note(answered.results[first].as_py())

    def close(self) -> None:
        self._con.close()

    def forget(self) -> None:
        self._epoch.current = 0
        self._clear()

    def _clear(self) -> None:
        self._con.execute("delete from answers")


def _with_damaged(texts: Any, answered: ColumnAnswer) -> ColumnAnswer:
    """Tells texts that begin like tokens from other text."""
    is_damaged = pc.and_(
        pc.equal(answered.codes, CODE["not_token"]), pc.match_substring_regex(texts, f"^(?:{BEGINNING.pattern})")
    )
    return answered._replace(codes=pc.if_else(is_damaged, pa.scalar(CODE["damaged"], pa.uint8()), answered.codes))


_NOTHING: Final = ColumnAnswer(pa.array([], pa.large_utf8()), pa.array([], pa.uint8()))


@contextlib.contextmanager
def registered(con: duckdb.DuckDBPyConnection, name: str, table: Any) -> Iterator[None]:
    """Registers an Arrow table with the connection under a name, for the block."""
    con.register(name, table)
    try:
        yield
    finally:
        con.unregister(name)
