"""Objects on their way to a store: the last piece is held back, and when it is sent the object appears, whole."""

import contextlib
import io
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final

from quorumvault.files.object_store import BLOCK_BYTES, StoreError, asking, codes, filesystem, find, path_in
from quorumvault.files.urls import Url

#: The most parts of an upload. Stores allow 10,000 parts, of at least 5 MiB each.
_MOST_PARTS: Final = 9_000
#: The bytes to send at once for an object of unknown length, which may so have up to 640 GB.
_STREAM_BLOCK_BYTES: Final = 64 << 20
#: The codes with which stores refuse a conditional write: the object exists already.
_REFUSED: Final = frozenset(("PreconditionFailed", "412"))


class NewObject:
    """An object on its way: its last piece is held back, and when that is sent the object appears, whole.

    An object that is not completed must be discarded: fsspec would complete a file that is garbage-collected.
    """

    def __init__(self, url: Url, *, exclusive: bool, size: int | None = None) -> None:
        """``exclusive``: an existing object stays. ``size``: the object's final size in bytes, if known."""
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
        """S3's id of the upload under way; None if there is none."""
        found = getattr(self._file, "mpu", None)
        return found["UploadId"] if found else None

    def begin(self) -> None:
        """Begins the upload, without sending a byte. Raises StoreError if the object cannot be written."""
        with asking(self.url):
            self._file.offset = 0
            self._file._initiate_upload()

    def write(self, data: bytes) -> int:
        with asking(self.url):
            return int(self._file.write(data))

    def complete(self) -> bool:
        """Completes the object, durably. Returns False if it is exclusive and another object exists."""
        try:
            if self._exclusive and self._file.tell() == 0 and find(self.url) is not None:
                return False  # s3fs would overwrite it with an empty object
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
        """Discards the upload. Has no effect on a completed object."""
        if self._is_open:
            self._is_open = False
            with contextlib.suppress(Exception):
                self._file.discard()
            self._file.closed = True


def require_writable(urls: Iterable[Url]) -> None:
    """Raises StoreError for a bucket that is not writable. To find out, begins an upload into each bucket, and discards it."""
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
    """Yields an object to write to, which appears if the block succeeds. Raises StoreError if it is exclusive and exists."""
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
    """Discards the S3 upload of a killed process. Raises StoreError, also if the upload is gone."""
    store = filesystem(url)
    bucket, _, key = path_in(store, url).partition("/")
    with asking(url):
        store.abort_mpu(bucket, key, upload_id)
