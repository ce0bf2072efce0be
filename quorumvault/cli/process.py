"""What a node's process asks of the kernel: no core dumps, and not to outlive who started it (prctl(2), Linux)."""

from __future__ import annotations

import ctypes
import os
import resource
import signal

from quorumvault.errors import QuorumVaultError

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


def forbid_core_dumps() -> None:
    """A core dump would have the secrets in it.

    The size limit alone does not stop a dump that the kernel pipes to a handler (core(5)); a process that is not dumpable
    has none, and cannot be read by a debugger of the same user either.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)


def stop_with(parent: int) -> None:
    """Get SIGTERM as soon as process ``parent`` ends, however it ends. Raises if it is gone already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise QuorumVaultError(f"process {parent}, which started this node, has ended")


def _prctl(option: int, argument: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}): {os.strerror(ctypes.get_errno())}")
