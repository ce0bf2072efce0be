"""Encodes columns of text as the Arrow streams that ``Client.exchange_arrow`` sends, and decodes the answers. Needs pyarrow."""

from typing import Any, NamedTuple

import pyarrow as pa

from quorumvault.errors import UnexpectedAnswer

#: Key of the tokens' epoch in the metadata of an answer's schema.
_EPOCH = b"quorumvault.epoch"
#: Types of an answer's columns, except dictionaries. pyarrow validates these types completely, nulls included.
_TEXT = {pa.utf8(), pa.large_utf8()}


class Column(NamedTuple):
    """An answer. ``statuses`` (utf8) is set if the operation can fail for a single text, ``epoch`` if the answer has tokens."""

    texts: Any
    statuses: Any = None
    epoch: int | None = None


def encode(name: str, texts: Any) -> bytes:
    """Returns the stream that asks about these texts, a pyarrow.Array of utf8 or large_utf8."""
    batch = pa.record_batch({name: texts})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def decode(body: bytes, name: str, count: int) -> Column:
    """Reads columns ``name`` and ``status`` of a stream. Raises UnexpectedAnswer unless it has ``count`` rows."""
    try:
        table = pa.ipc.open_stream(body).read_all()
        if not {field.type for field in table.schema} <= _TEXT:
            raise ValueError("a column that is not text")
        table.validate(full=True)
        texts = table.column(name).cast(pa.large_utf8()).combine_chunks()
        statuses = table.column("status").cast(pa.utf8()).combine_chunks() if "status" in table.schema.names else None
        epoch = (table.schema.metadata or {}).get(_EPOCH)
        column = Column(texts, statuses, None if epoch is None else int(epoch))
    except (pa.ArrowException, KeyError, ValueError, OSError):
        raise UnexpectedAnswer("an answer that does not keep to the API: is this the URL of a QuorumVault node?") from None
    if len(texts) != count:
        raise UnexpectedAnswer(f"{len(texts)} rows for {count}: is this the URL of a QuorumVault node?")
    return column
