"""Local copies of objects: runs read these."""

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from quorumvault.durable import sync_directory, sync_file
from quorumvault.files.job import RunError, SourceChanged
from quorumvault.files.object_store import AT_ONCE, BLOCK_BYTES, find, reading
from quorumvault.files.sources import Source, known_suffix
from quorumvault.files.urls import RemoteObject


def fetch(remote: RemoteObject, path: Path) -> None:
    """Makes a synced copy of an object. ``path`` is complete or absent. Raises StoreError, or OSError of the disk."""
    draft = path.with_name(f"{path.name}.part")
    with reading(remote.url) as source, draft.open("wb") as sink:
        shutil.copyfileobj(source, sink, BLOCK_BYTES)
    size, found = draft.stat().st_size, find(remote.url)
    if found is None or found.stamp != remote.stamp or size != (found.size if found.size is not None else size):
        raise SourceChanged(remote.url)
    sync_file(draft)
    draft.replace(path)


def fetch_all(objects: Iterable[tuple[RemoteObject, Path]]) -> None:
    """Makes the missing copies, several at once. Raises RunError if the disk has no room for them."""
    missing = [(remote, path) for remote, path in objects if not path.exists()]
    if not missing:
        return
    folder = missing[0][1].parent
    needed, free = sum(remote.size or 0 for remote, _ in missing), shutil.disk_usage(folder).free
    if needed > free:
        space = f"has {free >> 20:,} MiB left, and copies of the inputs take {needed >> 20:,} MiB"
        raise RunError(f"the disk of {folder.parent} {space}: make room")
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="quorumvault")
    try:
        for done in [pool.submit(fetch, remote, path) for remote, path in missing]:
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)
    sync_directory(folder)


@contextlib.contextmanager
def at_hand(source: Source) -> Iterator[Source]:
    """Yields a source that can be read. For an object, this is a copy that only this user can read, removed after the block."""
    if source.remote is None:
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="quorumvault-copy-") as folder:
        path = Path(folder) / f"copy{known_suffix(source.place)}"
        fetch_all([(source.remote, path)])
        yield dataclasses.replace(source, path=path)
