"""Arrow streams: valid ones of every shape, and broken ones. Checks that a body is refused properly or gives back what it held.

This process reads them; its memory pool checks the ends of each block.

corpus   plain text and dictionaries, in batches, with nulls, replaced and added dictionaries; made by pyarrow, and by hand
mutate   puts numbers where the format has numbers, flips bits, and moves, repeats, drops or exchanges pieces of streams
check    expects a refusal of the contract (4xx), or valid texts: they are written and read back unchanged
"""

import struct
from random import Random
from typing import Any

import pyarrow as pa

from quorumvault.config.limits import Limits
from quorumvault.errors import RequestError
from quorumvault.server.http.arrow_stream import Texts, read_texts, write_stream
from tests.fuzz.mutation import flip
from tests.fuzz.target import InProcess
from tests.rigs import arrow as rig

_LIMITS = Limits()
_TEXTS = (None, b"", b"x", "é\U0001f600".encode(), b"qv_1_" + b"a" * 48, b"a longer text than the others are", b"\0", b"y" * 300)
#: Edge values at which lengths, counts and offsets overflow.
_EDGES = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
_CODES = {8: "bB", 16: "hH", 32: "iI", 64: "qQ"}


class ArrowStreams(InProcess):
    def make(self, rng: Random) -> bytes:
        stream = corpus(rng)
        return mutate(rng, stream) if rng.random() < 0.95 else stream

    def check_one(self, data: bytes) -> str:
        return check(data)


def corpus(rng: Random) -> bytes:
    """Makes a valid stream of one column, ``value``."""
    return rng.choice((_plain, _coded, _by_pyarrow))(rng)


def mutate(rng: Random, seed: bytes) -> bytes:
    """Makes one or more changes."""
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        rng.choice(_CHANGES)(rng, data)
    return bytes(data)


def check(body: bytes) -> str:
    """Returns the outcome of reading the body: "read", or the code of a refusal. Raises for any other."""
    try:
        texts = read_texts(body, "value", _LIMITS)
    except RequestError as error:
        if not 400 <= error.status < 500:
            raise
        return error.code
    distinct: list[str] = texts.distinct.to_pylist()
    indices: list[int | None] = texts.indices.to_pylist()
    texts.distinct.validate(full=True)
    assert len(set(distinct)) == len(distinct)
    assert {index for index in indices if index is not None} == set(range(len(distinct)))
    assert [canonical[1:].decode() for canonical in texts.canonicals()] == distinct
    again = read_texts(write_stream({"value": texts.spread(distinct)}), "value", _LIMITS)
    assert (again.kind, again.coded, rows_of(again)) == (texts.kind, texts.coded, rows_of(texts))
    return "read"


def rows_of(texts: Texts) -> list[str | None]:
    rows: list[str | None] = texts.distinct.take(texts.indices).to_pylist()
    return rows


def _some(rng: Random) -> list[bytes | None]:
    return [rng.choice(_TEXTS) for _ in range(rng.choice((0, 1, 2, 9, 40)))]


def _plain(rng: Random) -> bytes:
    large = rng.random() < 0.5
    field = rig.field_of(kind=rig.LARGE_UTF8 if large else rig.UTF8)
    return rig.stream(rig.schema(field), *(rig.batch(rig.texts(*_some(rng), large=large)) for _ in range(rng.choice((0, 1, 2)))))


def _coded(rng: Random) -> bytes:
    large, signed, bits = rng.random() < 0.5, rng.random() < 0.5, rng.choice((8, 16, 32, 64))
    field = rig.field_of(kind=rig.LARGE_UTF8 if large else rig.UTF8, encoding=rig.encoding(bits, signed=signed, key=7))
    messages: list[rig.Message] = []
    held = 0
    for _ in range(rng.choice((1, 2, 4))):
        entries, delta = _some(rng), bool(messages) and rng.random() < 0.5
        held = len(entries) + (held if delta else 0)
        messages.append(rig.dictionary(rig.texts(*entries, large=large), key=7, delta=delta))
        valid = [rng.random() < 0.7 for _ in range(rng.choice((0, 1, 9)))]
        valid = valid if min(held, 100) else [False] * len(valid)
        given = [rng.randrange(min(held, 100)) if there else rng.choice((0, 99)) for there in valid]
        messages.append(rig.batch(rig.indices(*given, code=_CODES[bits][not signed], valid=valid)))
    return rig.stream(rig.schema(field), *messages)


def _by_pyarrow(rng: Random) -> bytes:
    kind = rng.choice(
        (pa.utf8(), pa.large_utf8(), pa.dictionary(pa.int8(), pa.utf8()), pa.dictionary(pa.uint32(), pa.large_utf8()))
    )
    schema = pa.schema([("value", kind)], {"more": "x" * rng.choice((0, 300))})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=rng.random() < 0.5)) as writer:
        for _ in range(rng.choice((1, 1, 3))):
            column: Any = pa.array([None if text is None else text.decode() for text in _some(rng)], pa.utf8())
            writer.write_batch(pa.record_batch([column.cast(kind)], schema=schema))
    return bytes(sink.getvalue())


def _number(rng: Random, data: bytearray) -> None:
    """Puts an edge value in place of a number, most often where the format has one."""
    code, width = rng.choice((("B", 1), ("H", 2), ("I", 4), ("Q", 8)))
    if len(data) < width:
        return
    at = rng.randrange(len(data) - width + 1)
    if rng.random() < 0.9:
        at -= at % width
    (held,) = struct.unpack_from(f"<{code}", data, at)
    number = rng.choice((rng.choice(_EDGES), held + rng.choice((-8, -1, 1, 8)), rng.randrange(len(data)), -rng.randrange(1, 99)))
    struct.pack_into(f"<{code}", data, at, number % (1 << 8 * width))


def _cut(rng: Random, data: bytearray) -> None:
    start, end = _span(rng, data)
    del data[start:end]


def _repeat(rng: Random, data: bytearray) -> None:
    start, end = _span(rng, data)
    if len(data) < 1 << 16:
        data[end:end] = data[start:end] * rng.choice((1, 2, 20))


def _splice(rng: Random, data: bytearray) -> None:
    """Puts a piece of another stream in place of as many bytes, or inserts it."""
    other = bytearray(corpus(rng))
    start, end = _span(rng, other)
    at = min(start, len(data))
    data[at : at + rng.choice((0, end - start))] = other[start:end]


def _span(rng: Random, data: bytearray) -> tuple[int, int]:
    """A random span, most often at multiples of 8, where messages and buffers begin."""
    start, length = rng.randrange(len(data) + 1), rng.choice((1, 4, 8, 16, 64, 1000))
    return start - start % 8 if length >= 8 else start, min(len(data), start + length)


def _message(rng: Random, data: bytearray) -> None:
    """Drops a message, repeats it, or moves it to the end."""
    starts = [at for at in range(0, len(data) - 7, 8) if data[at : at + 4] == rig.CONTINUATION]
    if len(starts) < 2:
        return
    which = rng.randrange(len(starts) - 1)
    start, end = starts[which], starts[which + 1]
    piece = data[start:end]
    if rng.random() < 0.5:
        del data[start:end]
    if rng.random() < 0.7:
        at = rng.choice([start for start in starts if start <= len(data)])
        data[at:at] = piece


_CHANGES = (_number, _number, _number, flip, _cut, _repeat, _splice, _message)
