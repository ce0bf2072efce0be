"""The lines of a binary stream: counted, so that an error can name the line, and bounded, so that no line fills the memory."""

from collections.abc import Iterator
from typing import BinaryIO

from quorumvault.errors import InputError

#: One line, and one CSV row of several lines: as much as one request to a node may be.
MAX_BYTES = 16 << 20

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Lines(Iterator[bytes]):
    """Lines with their ends, which the last one may lack.

    ``number`` is that of the line read last, counted from 1; ``offset`` how many bytes were read up to its end.
    """

    def __init__(self, stream: BinaryIO, source: str) -> None:
        self._stream = stream
        self.source = source
        self.number = 0
        self.offset = 0

    def __next__(self) -> bytes:
        line = self._stream.readline(MAX_BYTES + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.offset += len(line)
        if len(line) > MAX_BYTES:
            raise self.error(f"is longer than {MAX_BYTES >> 20} MiB: is this a text file of rows?")
        return line

    def error(self, problem: str, line: int | None = None) -> InputError:
        """At the line read last, unless another one is given."""
        return InputError(self.source, self.number if line is None else line, problem)

    def seek(self, offset: int, number: int) -> None:
        """Goes on after line ``number``, which ends at ``offset``. A stream that cannot seek is read up to there."""
        if self._stream.seekable():
            self._stream.seek(offset)
        else:
            while self.offset < offset and (passed := self._stream.read(min(MAX_BYTES, offset - self.offset))):
                self.offset += len(passed)
        self.offset, self.number = offset, number

    def without_mark(self) -> tuple[bytes, bytes]:
        """The byte order mark that the stream may begin with, and the rest of its first line; both empty for an empty one."""
        line = next(self, b"")
        return (BYTE_ORDER_MARK, line[3:]) if line.startswith(BYTE_ORDER_MARK) else (b"", line)


def split_end(line: bytes) -> tuple[bytes, bytes]:
    """A line and its end: CR LF, LF or nothing."""
    if line.endswith(b"\r\n"):
        return line[:-2], b"\r\n"
    if line.endswith(b"\n"):
        return line[:-1], b"\n"
    return line, b""
