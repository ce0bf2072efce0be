"""A pool of threads for the requests of one call."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor


@contextlib.contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Yields a pool of ``count`` threads for the block. If the block fails, tasks that have not started are cancelled.

    Ctrl-C does not wait for requests under way, since nodes may take as long as the client's patience: their threads end by
    themselves.
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
