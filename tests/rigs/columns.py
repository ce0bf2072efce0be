"""Bodies in Arrow: streams of one column of text, of each type that the API takes."""

from typing import Any

import pyarrow as pa

ARROW = {"Content-Type": "application/vnd.apache.arrow.stream"}
TEXT_TYPES = [
    pa.utf8(),
    pa.large_utf8(),
    pa.dictionary(pa.int32(), pa.utf8()),
    pa.dictionary(pa.int8(), pa.large_utf8()),
    pa.dictionary(pa.uint64(), pa.utf8()),
]


def array(texts: Any, kind: Any) -> Any:
    if not pa.types.is_dictionary(kind):
        return pa.array(texts, kind)
    entries = sorted({text for text in texts if text is not None})
    indices = [None if text is None else entries.index(text) for text in texts]
    return pa.DictionaryArray.from_arrays(pa.array(indices, kind.index_type), pa.array(entries, kind.value_type))


def stream(*batches: Any, options: Any = None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return bytes(sink.getvalue())


def column(name: str, texts: Any, kind: Any = None) -> bytes:
    return stream(pa.record_batch({name: array(texts, kind or pa.utf8())}))


#: A valid body for /detokenize.
GOOD = column("token", ["a", "b"])
