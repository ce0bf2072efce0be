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

# mallopt(3). Each request allocates and frees some hundred kilobytes for its batch. By default glibc returns them to the kernel
# each time and faults them in again, which cost a third of the throughput. Up to this much stays in the process instead.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEPT_BYTES, _GROWN_BYTES, _MAPPED_BYTES = 32 << 20, 4 << 20, 32 << 20
#: Objects between two runs of the cyclic garbage collector: a batch of 10,000 makes about 50,000 objects and no cycle.
_GC_OBJECTS = 100_000


#: Descriptors reserved for other uses than clients: tables that the store opens without mapping them, logs, links, closing
#: connections.
_OTHER_DESCRIPTORS = 256


def take_descriptors(cluster: Cluster) -> None:
    """Raises the limit of file descriptors as far as the system allows. Connections and the store share them; often it is 1,024.

    Raises ConfigError if too few are left for the connections: the store fails permanently when it gets none.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = hard - _OTHER_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and cluster.limits.connections > most:
        why = f"a process may have {hard} open files (ulimit -n), {_OTHER_DESCRIPTORS} of them for the store and the peers"
        raise ConfigError(cluster.file, "limits.connections", f"expected at most {most}: {why}; raise that limit, or lower this")


def expect_batches() -> None:
    """Tunes memory for requests that allocate much at once and free all of it. Call it after all modules are loaded."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, musl does not
    if mallopt is not None:
        for option, value in ((_M_TRIM_THRESHOLD, _KEPT_BYTES), (_M_TOP_PAD, _GROWN_BYTES), (_M_MMAP_THRESHOLD, _MAPPED_BYTES)):
            mallopt(option, value)
    gc.freeze()
    gc.set_threshold(_GC_OBJECTS, 10, 10)


def stop_with(parent: int) -> None:
    """Makes the kernel send SIGTERM when process ``parent`` ends, however it ends. Raises if it has ended already."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise QuorumVaultError(f"process {parent}, which started this node, has ended")
