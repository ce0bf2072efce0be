"""What a process that holds secrets asks of the kernel: no core dumps, no looks from outside, and memory that is not swapped out.

What Python itself copies is beyond this: docs/security.md says what is promised.
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
    """A core dump would have the secrets in it.

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
    """Return a page of zeros for ``what``, locked into memory, that no core dump and no forked process has.

    Where the system does not allow the lock a warning says so. One page is within every limit but 0. All of a node's memory
    (mlockall) would be the tables of its store too, which the kernel could then never take back.
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
