"""Memory protection for a process with secrets: no core dumps, no access by other processes, and memory that is not swapped out.

Copies that Python itself makes are not covered: docs/security.md says what is promised.
"""

import ctypes
import logging
import mmap
import os
import resource
from typing import Final

logger = logging.getLogger("quorumvault.node")

_PR_SET_DUMPABLE: Final = 4


def forbid_core_dumps() -> None:
    """Forbid core dumps, which would contain the secrets.

    The size limit alone does not stop a dump that the kernel pipes to a handler (core(5)); a process that is not dumpable
    has none, and its memory and environment cannot be read by other processes of the same user either.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl(_PR_SET_DUMPABLE, 0)


def prctl(option: int, argument: int) -> None:
    """prctl(2). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}): {os.strerror(ctypes.get_errno())}")


def locked_page(what: str) -> memoryview:
    """Return a page of zeros for ``what``, locked into memory, which no core dump and no forked process contains.

    If the system does not allow the lock, a warning says so. One page fits within every limit except 0. Locking all of a node's
    memory (mlockall) would also lock the tables of its store, which the kernel could then never reclaim.
    """
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page.madvise(mmap.MADV_DONTDUMP)
    page.madvise(mmap.MADV_DONTFORK)
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    if libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE)) != 0:
        why = os.strerror(ctypes.get_errno())
        logger.warning("%s may be written to swap: it could not be locked into memory (%s): raise ulimit -l", what, why)
    return memoryview(page)
