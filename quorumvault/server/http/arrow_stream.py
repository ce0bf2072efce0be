"""Arrow IPC streams in and out. One column of text becomes distinct texts, because the vault is asked about each text once.

    body -> arrow_ipc.py: its envelope -> arrow_column.py: its texts, judged -> Texts: distinct texts, an index for each row
    answers to the distinct texts -> a column of the same type, in the order of the rows -> pyarrow writes a stream

pyarrow's own reader of streams never gets a byte of a request.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from quorumvault.config.limits import Limits
from quorumvault.crypto.canonical import TEXT_PREFIX
from quorumvault.errors import Invalid
from quorumvault.server.http.arrow_column import read_rows
from quorumvault.server.http.arrow_ipc import read_envelope

#: Metadata of a schema, in answers that have tokens.
EPOCH = b"quorumvault.epoch"


@dataclass(frozen=True, slots=True)
class Texts:
    """A column of ``kind`` or, if it is ``coded``, of a dictionary of it. ``distinct`` is large_utf8 without nulls, ``indices``
    int32, null where the row is."""

    kind: Any
    coded: bool
    distinct: Any = field(repr=False)
    indices: Any = field(repr=False)

    @property
    def asked(self) -> int:
        """Number of rows that are not null."""
        return len(self.indices) - int(self.indices.null_count)

    def canonicals(self) -> list[bytes]:
        """Return the canonical form of each distinct text."""
        texts: list[bytes] = self.distinct.cast(pa.large_binary()).to_pylist()
        return [TEXT_PREFIX + text for text in texts]

    def rows_of(self, distinct: Container[int]) -> list[tuple[int, int]]:
        """Return each row whose text is one of these, with the index of that text."""
        return [(row, index) for row, index in enumerate(self.indices.to_pylist()) if index in distinct]

    def tally(self, words: Sequence[str]) -> dict[str, int]:
        """Return how many rows have each word. Null rows are left out."""
        counted = pa.array(words, pa.utf8()).take(self.indices).value_counts()
        return dict(zip(*(column.to_pylist() for column in counted.flatten()), strict=True))

    def size_of(self, sizes: Sequence[int]) -> int:
        """Return the bytes of a column whose distinct texts have these ``sizes``. A dictionary has each text once."""
        if self.coded:
            return sum(sizes)
        return int(pc.sum(pa.array(sizes, pa.int64()).take(self.indices)).as_py() or 0)

    def stream(self, name: str, texts: Sequence[Any], words: Sequence[str] | None = None, epoch: int | None = None) -> bytes:
        """Return the answer: a column ``name`` with each text's replacement, and a column ``status`` if ``words`` are given."""
        columns = {name: self.spread(texts)}
        if words is not None:
            columns["status"] = pa.array(words, pa.utf8()).take(self.indices).fill_null("null")
        return write_stream(columns, epoch)

    def spread(self, texts: Sequence[Any]) -> Any:
        """Return a column of the same type with the replacement of each row's text, null for a null row."""
        values = pa.array(texts, pa.large_utf8())
        if not self.coded:
            return values.take(self.indices).cast(self.kind)
        entries = values.dictionary_encode()
        indices = entries.indices.take(self.indices)
        return pa.DictionaryArray.from_arrays(indices, entries.dictionary.cast(self.kind))


def read_texts(body: bytes, name: str | None, limits: Limits) -> Texts:
    """Return the one column of a stream, called ``name`` unless that is None. Raises Malformed, Invalid, TooManyItems."""
    column, batches = read_envelope(body, limits)
    distinct, indices = read_rows(body, column, batches)
    if name is not None and column.name != name.encode():
        raise Invalid(f"the column has another name than {name}")
    return Texts(pa.large_utf8() if column.large else pa.utf8(), column.index is not None, distinct, indices)


def write_stream(columns: Mapping[str, Any], epoch: int | None = None) -> bytes:
    """Return a stream of one record batch."""
    batch = pa.record_batch(dict(columns))
    if epoch is not None:
        batch = batch.replace_schema_metadata({EPOCH: str(epoch)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())
