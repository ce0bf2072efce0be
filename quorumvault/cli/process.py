"""What a node's process asks of kernel and runtime: to end with its parent (Linux), to have enough file descriptors, and to keep
memory that it will soon need again."""

import ctypes
import gc
import os
import resource
import signal

from quorumvault.config.cluster import Cluster
from quorumvault.config.process_memory import prctl
from quorumvault.errors import ConfigError, QuorumVaultError

_PR_SET_PDEATHSIG = 1

# mallopt(3). A batch is some hundred kilobytes that come and go with every request: left alone, glibc hands them back to the
# kernel each time and faults them in again, which took a third of the throughput. Up to this much stays instead.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEPT_BYTES, _GROWN_BYTES, _MAPPED_BYTES = 32 << 20, 4 << 20, 32 << 20
#: Objects between two looks for garbage in cycles: a batch of 10,000 makes some 50,000 objects and not one cycle.
_GC_OBJECTS = 100_000


#: Kept for what is no client: tables that the store has open and does not map into memory, logs, links, connections about to end.
_OTHER_DESCRIPTORS = 256


def take_descriptors(cluster: Cluster) -> None:
    """Raise the limit of file descriptors as far as the system allows. Connections and the store share them; many start at 1,024.

    Raises ConfigError if there are too few for the connections: the store fails for good when it gets none.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = hard - _OTHER_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and cluster.limits.connections > most:
        why = f"a process may have {hard} open files (ulimit -n), {_OTHER_DESCRIPTORS} of them for the store and the peers"
        raise ConfigError(cluster.file, "limits.connections", f"expected at most {most}: {why}; raise that limit, or lower this")


def expect_batches() -> None:
    """Tune memory for requests that take a lot at once and give it all back. To be called when all modules are loaded."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, musl does not
    if mallopt is not None:
        for option, value in ((_M_TRIM_THRESHOLD, _KEPT_BYTES), (_M_TOP_PAD, _GROWN_BYTES), (_M_MMAP_THRESHOLD, _MAPPED_BYTES)):
            mallopt(option, value)
    gc.freeze()
    gc.set_threshold(_GC_OBJECTS, 10, 10)


def stop_with(parent: int) -> None:
    """Get SIGTERM as soon as process ``parent`` ends, however it ends. Raises if it is gone already."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise QuorumVaultError(f"process {parent}, which started this node, has ended")
