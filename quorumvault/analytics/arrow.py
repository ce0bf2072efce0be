"""The one batch function: runs columns of any length through the vault, and asks about each distinct text of a window once.

    batches  ->  windows of up to WINDOW_ROWS  ->  distinct texts  ->  runs within GET /limits  ->  a request each, in threads
    rows in their order  <-  an index for each row  <-  what was answered for each distinct text

Memory holds one window, whatever the length of the input. A look-up never sends text that is not a token: it might be anybody's
diagnosis. All tokens of one call have one epoch: if a rotation comes within a window, the older tokens are asked for again.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import add
from typing import Any, Final, Protocol, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from quorumvault import errors
from quorumvault.analytics.notebook import progress_of
from quorumvault.client import Limits, batches
from quorumvault.client.arrow import Column, decode, encode
from quorumvault.client.operations import ArrowOperation
from quorumvault.client.policy import EPOCH_PASSES
from quorumvault.client.threads import threads
from quorumvault.crypto.tokens import parse_alike, parse_tokens

#: Rows of a window: about 60 MB of tokens. A larger window would find more repeats; a smaller one would fill fewer requests.
WINDOW_ROWS: Final = 500_000
#: Requests under way at once: two for each node of a cluster, so that no node waits for the client. A node takes 64.
IN_FLIGHT: Final = 6
#: The column to send, and the column of the answer.
_COLUMNS: dict[ArrowOperation, tuple[str, str]] = {
    "tokenize": ("value", "token"),
    "detokenize": ("token", "value"),
    "retokenize": ("token", "token"),
}
#: Bytes of an Arrow stream around its batch (schema, envelope), and bytes of each row beside its text.
_STREAM_BYTES, _ROW_BYTES = 2048, 9
_ANSWERED: Final = pa.schema([("text", pa.large_utf8()), ("result", pa.large_utf8()), ("status", pa.utf8())])

#: Each run and its answer, by the run's start.
_Columns: TypeAlias = dict[int, tuple[slice, Column]]

#: Statuses without an answer: the value could not be determined, or two values collide and neither is returned.
_FAILURES: dict[str, tuple[type[errors.RequestError], str]] = {
    "unavailable": (errors.NoQuorum, "a token's value could not be told, though the others of its request could: ask again"),
    "collision": (errors.TokenCollision, "two values met in a token: neither is given out"),
}


class ArrowVault(Protocol):
    """The part of a Client that ``look_up`` uses. Its methods are called from several threads."""

    def limits(self) -> Limits: ...

    def exchange_arrow(
        self, operation: ArrowOperation, encode: Callable[[slice], bytes], count: int
    ) -> list[tuple[slice, bytes]]: ...


def look_up(
    vault: ArrowVault,
    operation: ArrowOperation,
    arrays: Iterable[Any],
    *,
    strict: bool = True,
    in_flight: int = IN_FLIGHT,
    window_rows: int = WINDOW_ROWS,
) -> Iterator[Any]:
    """Looks up pyarrow arrays of text. Yields record batches ``text``, ``result``, ``status``, a row for each text, in order.

    ``arrays`` may have any lengths. ``result`` is the value or the token, null unless ``status`` is ``ok``:

        null       there was no text          not_found  no value of this owner has this token
        not_token  text of another form       not_text   the value is a number or a boolean: use Client.detokenize

    Raises the client's errors. If the value of a single token cannot be determined, raises NoQuorum or TokenCollision; without
    ``strict`` its status is ``unavailable`` or ``collision`` instead. An error about values that cannot be tokenized lists their
    rows, counted over all arrays. Raises EpochMoved if the owner's epoch was rotated after some batches were yielded; the caller
    then has to start again.
    """
    with passage(vault, operation, strict=strict, in_flight=in_flight) as way:
        yield from way.batches(arrays, window_rows)


def _ignore(texts: int) -> None:
    """Shows no progress."""


def look_up_distinct(vault: ArrowVault, operation: ArrowOperation, texts: Any) -> Any:
    """Looks up an array of distinct texts, all in one epoch. Returns a table of the batches of ``look_up``.

    A notebook shows a progress bar. Raises EpochMoved if the owner's epoch was rotated repeatedly meanwhile.
    """
    for _ in range(EPOCH_PASSES):
        with (
            contextlib.suppress(errors.EpochMoved),
            progress_of(operation, len(texts)) as progress,
            passage(vault, operation, progress=progress) as way,
        ):
            return way.table(texts)
    raise errors.EpochMoved


def nothing(texts: Any) -> Any:
    """Returns the empty answer, for no texts."""
    return _ANSWERED.empty_table()


@contextlib.contextmanager
def passage(
    vault: ArrowVault,
    operation: ArrowOperation,
    *,
    strict: bool = True,
    in_flight: int = IN_FLIGHT,
    progress: Callable[[int], None] = _ignore,
) -> Iterator["Passage"]:
    """Yields a Passage. ``progress`` is called with the number of texts answered since its last call."""
    with threads(in_flight) as pool:
        yield Passage(vault, operation, strict, pool, progress)


class Passage:
    """Texts on their way through the vault, all of one epoch."""

    def __init__(
        self,
        vault: ArrowVault,
        operation: ArrowOperation,
        strict: bool,
        pool: ThreadPoolExecutor,
        progress: Callable[[int], None],
    ) -> None:
        self._vault = vault
        self._strict = strict
        self._pool = pool
        self._progress = progress
        self._operation: Final = operation
        self._asks, self._answers = _COLUMNS[operation]
        self._epoch: int | None = None

    def batches(self, arrays: Iterable[Any], window_rows: int = WINDOW_ROWS) -> Iterator[Any]:
        """Yields record batches: see ``look_up``."""
        start = 0
        for window in _windows(arrays, window_rows):
            try:
                batch = self._through(window)
            except errors.RequestError as error:
                raise batches.about(error, partial(add, start)) from None
            yield batch
            start += len(window)

    def table(self, texts: Any) -> Any:
        """Returns all batches of one array as a table."""
        return pa.Table.from_batches(self.batches([texts]), _ANSWERED)

    def _through(self, window: Any) -> Any:
        encoded = window.dictionary_encode()
        texts = encoded.dictionary
        sent = self._sendable(texts)
        try:
            results, statuses = self._ask(texts.filter(sent))
        except errors.RequestError as error:
            raise _in_rows(error, encoded.indices, pc.indices_nonzero(sent)) from None
        if len(results) < len(texts):
            results = pc.replace_with_mask(pa.nulls(len(texts), pa.large_utf8()), sent, results)
            statuses = pc.replace_with_mask(pa.repeat("not_token", len(texts)), sent, statuses)
        of_rows = statuses.take(encoded.indices).fill_null("null")
        return pa.record_batch({"text": window, "result": results.take(encoded.indices), "status": of_rows})

    def _sendable(self, texts: Any) -> Any:
        if self._asks == "value":
            return pa.repeat(True, len(texts))
        listed = texts.to_pylist()
        if parse_alike(listed) is not None:  # nearly always true, and takes half the time
            return pa.repeat(True, len(texts))
        return pa.array([parsed is not None for parsed in parse_tokens(listed)], pa.bool_())

    def _ask(self, texts: Any) -> tuple[Any, Any]:
        """Sends distinct texts. Returns their results and statuses."""
        stale = _cut(texts, self._vault.limits())
        if not stale:
            return pa.array([], pa.large_utf8()), pa.array([], pa.utf8())
        columns: _Columns = {}
        for _ in range(EPOCH_PASSES):
            for run, column in self._exchange(texts, stale):
                columns[run.start] = run, column
            stale = self._stale(columns)
            if not stale:
                return _joined([columns[start][1] for start in sorted(columns)], self._strict)
        raise errors.EpochMoved

    def _exchange(self, texts: Any, runs: list[slice]) -> list[tuple[slice, Column]]:
        """Returns the answers to these runs; a run that was sent in parts has several."""

        def exchange(run: slice) -> list[tuple[slice, Column]]:
            def body(part: slice) -> bytes:
                return encode(self._asks, texts.slice(run.start + part.start, part.stop - part.start))

            try:
                answers = self._vault.exchange_arrow(self._operation, body, run.stop - run.start)
            except errors.RequestError as error:
                raise batches.about(error, partial(add, run.start)) from None
            return [
                (slice(run.start + part.start, run.start + part.stop), decode(answer, self._answers, part.stop - part.start))
                for part, answer in answers
            ]

        answers = []
        for run, told in zip(runs, self._pool.map(exchange, runs) if len(runs) > 1 else map(exchange, runs), strict=True):
            answers += told
            self._progress(run.stop - run.start)
        return answers

    def _stale(self, columns: _Columns) -> list[slice]:
        """Returns the runs whose tokens have an older epoch."""
        if self._answers == "value":
            return []
        newest = max(column.epoch or 0 for _, column in columns.values())
        if self._epoch is not None and newest > self._epoch:
            raise errors.EpochMoved("the epoch was rotated after a part of this was done: begin again")
        stale = [run for run, column in columns.values() if (column.epoch or 0) < newest]
        if not stale:
            self._epoch = newest
        return stale


def _windows(arrays: Iterable[Any], rows: int) -> Iterator[Any]:
    """Yields the texts again, in large_utf8 arrays of ``rows`` rows; the last one is shorter."""
    held: list[Any] = []
    room = rows
    for array in arrays:
        start = 0
        while start < len(array):
            part = array.slice(start, room)
            held.append(part.cast(pa.large_utf8()))
            start, room = start + len(part), room - len(part)
            if room == 0:
                yield pa.concat_arrays(held)
                held, room = [], rows
    if held:
        yield pa.concat_arrays(held)


def _cut(texts: Any, limits: Limits) -> list[slice]:
    """Cuts texts into runs, each for one request."""
    weights = ((length + _ROW_BYTES, 0) for length in pc.binary_length(texts).to_pylist())
    return list(batches.runs(weights, limits, limits.body_bytes - _STREAM_BYTES))


def _joined(columns: list[Column], strict: bool) -> tuple[Any, Any]:
    """Returns results and statuses of all runs. If ``strict``, raises for a token whose value could not be determined."""
    results = pa.concat_arrays([column.texts for column in columns])
    if columns[0].statuses is None:
        return results, pa.repeat("ok", len(results))
    statuses = pa.concat_arrays([column.statuses for column in columns])
    for status, (kind, words) in _FAILURES.items() if strict else ():
        if pc.any(pc.equal(statuses, status)).as_py():
            raise kind(words)
    return results, statuses


def _in_rows(error: errors.RequestError, indices: Any, sent: Any) -> errors.RequestError:
    """Turns an error about the texts sent into one about the first rows that have them."""
    return batches.about(error, lambda index: pc.index(indices, sent[index].as_py()).as_py() if 0 <= index < len(sent) else None)
