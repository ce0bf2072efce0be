"""Encodes columns of text as the Arrow streams that ``Client.exchange_arrow`` sends, and decodes the answers. Needs pyarrow."""

from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from quorumvault.crypto.tokens import parse_joined
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
    if not _is_whole(column) or not (name == "value" or _has_tokens(column)):
        raise UnexpectedAnswer("an answer with other than was asked for: is this the URL of a QuorumVault node?")
    return column


def _is_whole(column: Column) -> bool:
    """Returns whether there is a text where the status is ``ok``, or where there is none, and only there."""
    if column.statuses is None:
        return not column.texts.null_count
    strange = pc.not_equal(pc.equal(column.statuses, "ok"), column.texts.is_valid())
    return not column.statuses.null_count and not pc.any(strange).as_py()


def _has_tokens(column: Column) -> bool:
    """Returns whether the texts are tokens of the answer's epoch; and each another one, if nothing else can become of a value."""
    texts = column.texts.drop_null() if column.texts.null_count else column.texts
    if not len(texts):
        return True
    lengths = pc.min_max(pc.binary_length(texts))
    if lengths["min"] != lengths["max"]:
        return False
    _, offsets, data = texts.buffers()
    ends = memoryview(offsets).cast("q")
    joined = data[ends[texts.offset] : ends[texts.offset + len(texts)]].to_pybytes()
    parsed = parse_joined(joined.decode("ascii", "replace"), len(texts))
    if parsed is None or parsed[0] != column.epoch:
        return False
    return column.statuses is not None or len(set(parsed[1])) == len(texts)
