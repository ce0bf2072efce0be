"""The lines of a binary stream: counted, so that an error can name the line, and bounded, so that no line fills the memory."""

from collections.abc import Iterator
from typing import BinaryIO

from quorumvault.errors import InputError

#: The most bytes of one line, or of one CSV row of several lines: as many as one request to a node may have.
MAX_BYTES = 16 << 20

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Lines(Iterator[bytes]):
    """Lines with their line ends, which the last line may lack.

    ``number`` is the number of the line read last, counted from 1; ``offset`` is the number of bytes up to its end.
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
        """Makes an error at ``line``, by default the line read last."""
        return InputError(self.source, self.number if line is None else line, problem)

    def seek(self, offset: int, number: int) -> None:
        """Continues after line ``number``, which ends at ``offset``. Reads up to there if the stream cannot seek."""
        if self._stream.seekable():
            self._stream.seek(offset)
        else:
            while self.offset < offset and (passed := self._stream.read(min(MAX_BYTES, offset - self.offset))):
                self.offset += len(passed)
        self.offset, self.number = offset, number

    def without_mark(self) -> tuple[bytes, bytes]:
        """Returns the stream's byte order mark, if any, and the rest of its first line; both are empty for an empty stream."""
        line = next(self, b"")
        return (BYTE_ORDER_MARK, line[3:]) if line.startswith(BYTE_ORDER_MARK) else (b"", line)


def split_end(line: bytes) -> tuple[bytes, bytes]:
    """Splits a line from its line end: CR LF, LF or nothing."""
    if line.endswith(b"\r\n"):
        return line[:-2], b"\r\n"
    if line.endswith(b"\n"):
        return line[:-1], b"\n"
    return line, b""
