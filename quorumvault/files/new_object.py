"""Objects on their way to a store: the last piece is held back, and when it is sent the object appears, whole."""

import contextlib
import io
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final

from quorumvault.files.object_store import BLOCK_BYTES, StoreError, asking, codes, filesystem, find, path_in
from quorumvault.files.urls import Url

#: A part of an upload has 5 MiB at least, and there are 10,000 at most.
_MOST_PARTS: Final = 9_000
#: What is sent at once of an object whose length nobody knows: so there may be 640 GB of it.
_STREAM_BLOCK_BYTES: Final = 64 << 20
#: What stores answer for a condition that does not hold: an object is there already.
_REFUSED: Final = frozenset(("PreconditionFailed", "412"))


class NewObject:
    """An object on its way: all but its end is sent, and it appears, whole, with its end.

    What is not completed has to be discarded: fsspec would complete a file that is forgotten.
    """

    def __init__(self, url: Url, *, exclusive: bool, size: int | None = None) -> None:
        """``exclusive``: an object that is there stays. ``size``: what it will have, if that is known."""
        self.url = url
        store = filesystem(url)
        self.block = _STREAM_BLOCK_BYTES if size is None else max(BLOCK_BYTES, (size // _MOST_PARTS >> 20) + 1 << 20)
        with asking(url):
            self._file = store.open(path_in(store, url), "xb" if exclusive else "wb", block_size=self.block)
        self._file.autocommit = False
        self._exclusive = exclusive
        self._is_open = True

    @property
    def upload_id(self) -> str | None:
        """What S3 calls an upload that is under way."""
        found = getattr(self._file, "mpu", None)
        return found["UploadId"] if found else None

    def begin(self) -> None:
        """Raises StoreError if nothing can be written there. Sends no byte."""
        with asking(self.url):
            self._file.offset = 0
            self._file._initiate_upload()

    def write(self, data: bytes) -> int:
        with asking(self.url):
            return int(self._file.write(data))

    def complete(self) -> bool:
        """Returns whether it is there now: not if it is exclusive and another one is there. Durable when it returns."""
        try:
            if self._exclusive and self._file.tell() == 0 and find(self.url) is not None:
                return False  # s3fs would write over it, without a byte
            self._file.autocommit = True
            with asking(self.url):
                return self._close()
        finally:
            self.discard()

    def _close(self) -> bool:
        try:
            self._file.close()
        except Exception as error:
            if isinstance(error, FileExistsError) or _REFUSED.intersection(codes(error)):
                return False
            raise
        self._is_open = False
        return True

    def discard(self) -> None:
        """Has no effect on what is completed."""
        if self._is_open:
            self._is_open = False
            with contextlib.suppress(Exception):
                self._file.discard()
            self._file.closed = True


def require_writable(urls: Iterable[Url]) -> None:
    """Raises StoreError for a bucket to which nothing can be written: an upload into each is begun, and discarded."""
    buckets = {(url.scheme, url.rest.partition("/")[0]): url for url in urls}
    for url in buckets.values():
        made = NewObject(url, exclusive=False)
        try:
            made.begin()
        finally:
            made.discard()


class _Writer(io.RawIOBase):
    def __init__(self, made: NewObject) -> None:
        self._made = made

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._made.write(bytes(data))


@contextlib.contextmanager
def writing(url: Url, *, exclusive: bool) -> Iterator[BinaryIO]:
    """An object to write to, that appears when the block ends well. Raises StoreError if it is exclusive and one is there."""
    made = NewObject(url, exclusive=exclusive)
    try:
        sink = io.BufferedWriter(_Writer(made), 1 << 20)
        yield sink
        sink.flush()
        if not made.complete():
            raise StoreError(f"{url} has appeared meanwhile: name another object, or give --force to replace it")
    finally:
        made.discard()


def abandon(url: Url, upload_id: str) -> None:
    """Discards an upload to S3 of a process that was killed. Raises StoreError, also for what is gone."""
    store = filesystem(url)
    bucket, _, key = path_in(store, url).partition("/")
    with asking(url):
        store.abort_mpu(bucket, key, upload_id)
