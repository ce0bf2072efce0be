"""A pool of threads for the requests of one call."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor


@contextlib.contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """So many threads, as long as the block lasts. What has not begun when it fails is not begun.

    Ctrl-C does not wait for the requests that are under way either, since nodes may take as long as the client is patient: those
    threads end by themselves.
    """
    pool = ThreadPoolExecutor(count, thread_name_prefix="quorumvault")
    waits = True
    try:
        yield pool
    except KeyboardInterrupt:
        waits = False
        raise
    finally:
        pool.shutdown(waits, cancel_futures=True)
