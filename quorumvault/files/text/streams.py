"""Shows text files of any encoding and compression as plain UTF-8: layers over their bytes, for reading and for writing.

    bytes -> gzip, Zstandard -> UTF-16, Latin-1, Windows-1252 -> UTF-8 -> rows -> parts -> the same layers, backwards -> bytes

Every layer is exact both ways: bytes that are not text in the encoding are refused. Uncompressed UTF-8 needs no layer.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from quorumvault.errors import InputError
from quorumvault.files.job import RunError
from quorumvault.files.sources import Compression
from quorumvault.formats.dialect import Encoding

_CHUNK: Final = 256 << 10
#: Python's names of the encodings. UTF-16 without a byte order mark is little-endian, as Windows writes it.
_CODECS: Final[dict[Encoding, str]] = {
    "utf-16": "utf-16-le",
    "utf-16-le": "utf-16-le",
    "utf-16-be": "utf-16-be",
    "latin-1": "latin-1",
    "windows-1252": "cp1252",
}
_MARKS: Final = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


#: The first bytes of files that are not text, and what to do with such files.
_NO_TEXT: Final = (
    (re.compile(rb"\x1f\x8b"), "is compressed with gzip: unpack it first, or let its name end with .gz"),
    (re.compile(rb"\x28\xb5\x2f\xfd"), "is compressed with Zstandard: unpack it first, or let its name end with .zst"),
    (re.compile(rb"BZh\d1AY&SY"), "is compressed with bzip2: unpack it first"),
    (re.compile(rb"\xfd7zXZ\x00"), "is compressed with xz: unpack it first"),
    (re.compile(rb"PK\x03\x04"), "is a ZIP archive, or a workbook: unpack it, or save its sheet as CSV"),
    (re.compile(rb"PAR1[\x00-\x1f]"), "is Parquet: say --format parquet"),
    (re.compile(rb".{8}DUCK..\0{6}", re.DOTALL), "is a DuckDB file: say which table, FILE.duckdb::TABLE"),
    (re.compile(rb"SQLite format 3\x00"), "is a SQLite file: write its table as CSV"),
)
_LONGEST_BEGINNING: Final = 20


class TextInput:
    """A file or a pipe as UTF-8. ``codec``: the codec of its encoding, None for UTF-8. Does not close the file.

    Raises RunError if the file begins like one that is not text.
    """

    def __init__(self, stream: BinaryIO, name: str, compression: Compression | None, encoding: Encoding | None) -> None:
        self.stream = stream
        if compression is not None:
            self.stream = io.BufferedReader(_Layer(_decompressed(stream, compression).read, name, compression), _CHUNK)
        _require_text(self.stream, name)
        self.codec = _codec(self.stream, encoding)
        self.is_layered = self.stream is not stream or self.codec is not None
        if self.codec is not None:
            self.stream = io.BufferedReader(_Decoded(self.stream.read, name, self.codec), _CHUNK)

    def is_at_end(self) -> bool:
        """Returns whether a layered input has been read to its end."""
        return isinstance(self.stream, io.BufferedReader) and not self.stream.peek(1)


def _require_text(stream: BinaryIO, name: str) -> None:
    beginning = stream.peek(_LONGEST_BEGINNING) if isinstance(stream, io.BufferedReader) else b""
    for mark, words in _NO_TEXT:
        if mark.match(beginning):
            raise RunError(f"{name} {words}")


def _codec(stream: BinaryIO, encoding: Encoding | None) -> str | None:
    mark = stream.peek(2)[:2] if encoding in (None, "utf-16") and isinstance(stream, io.BufferedReader) else b""
    return _MARKS.get(mark) or _CODECS.get(encoding or "utf-8")


class _Layer(io.RawIOBase):
    """A stream of the bytes that ``read`` returns. Raises InputError where a compressed file is damaged."""

    def __init__(self, read: Callable[[int], bytes], name: str, layer: str) -> None:
        self._read = read
        self._name = name
        self._layer = layer
        self._held = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._held:
            self._held = self._next()
        part, self._held = self._held[: len(buffer)], self._held[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def _next(self) -> bytes:
        """Returns the next bytes; b"" at the end."""
        try:
            return bytes(self._read(_CHUNK))
        except (EOFError, zlib.error, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise RunError(f"{self._name} is damaged or cut off: it is no whole {self._layer} file") from None


class _Decoded(_Layer):
    """Converts text in another encoding to UTF-8. Raises InputError for bytes that are not text in the encoding."""

    def __init__(self, read: Callable[[int], bytes], name: str, codec: str) -> None:
        super().__init__(read, name, codec)
        self._decode = codecs.getincrementaldecoder(codec)().decode
        self._lines = 1

    def _next(self) -> bytes:
        text = ""
        more = b"more"
        while more and not text:
            more = self._read(_CHUNK)
            try:
                text = self._decode(more, not more)
            except UnicodeDecodeError as error:
                line = self._lines + error.object[: error.start].decode(self._layer).count("\n")
                raise InputError(self._name, line, f"is no text in {self._layer}: name the file's encoding, --encoding") from None
        self._lines += text.count("\n")
        return text.encode()


def _decompressed(stream: BinaryIO, compression: Compression) -> Any:
    if compression == "gzip":
        return gzip.GzipFile(fileobj=stream, mode="rb")
    return _arrow().CompressedInputStream(stream, "zstd")


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise RunError("files in Zstandard (.zst) need the extra analytics: pip install 'quorumvault[analytics]'") from None
    return pyarrow


class TextOutput:
    """Takes UTF-8, and writes it to ``sink`` in an encoding."""

    def __init__(self, sink: Any, codec: str | None) -> None:
        self._sink = sink
        self._codec = codec
        self._decode = codecs.getincrementaldecoder("utf-8")().decode

    def write(self, text: bytes) -> None:
        """Writes text. Raises UnicodeEncodeError for a character that the encoding does not have."""
        self._sink.write(text if self._codec is None else self._decode(text).encode(self._codec))


@contextlib.contextmanager
def text_output(sink: BinaryIO, compression: Compression | None, codec: str | None) -> Iterator[TextOutput]:
    """Yields an output. When the block ends, it finishes the compressed stream and leaves ``sink`` open."""
    if compression is None:
        yield TextOutput(sink, codec)
    elif compression == "gzip":  # without a time, so that equal rows make equal bytes
        with gzip.GzipFile(filename="", fileobj=sink, mode="wb", compresslevel=6, mtime=0) as packed:
            yield TextOutput(packed, codec)
    else:
        with _arrow().CompressedOutputStream(_Kept(sink), "zstd") as packed:
            yield TextOutput(packed, codec)


class _Kept(io.RawIOBase):
    """A sink that pyarrow does not close."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._sink.write(data)


def copy_text(source: Path, output: TextOutput) -> None:
    with source.open("rb") as part:
        while chunk := part.read(_CHUNK):
            output.write(chunk)


def require_writable(text: bytes, codec: str | None, name: str, line: int) -> None:
    """Raises InputError if rows, the first of which is at ``line``, have a character that the encoding does not have."""
    if codec is None or codec.startswith("utf") or text.isascii():
        return
    decoded = text.decode()
    try:
        decoded.encode(codec)
    except UnicodeEncodeError as error:
        line += decoded.count("\n", 0, error.start)
        raise InputError(name, line, f"a value that comes back has a character that {codec} does not have") from None
