"""Partitions for a caller without an event loop: cuts and mends a cluster's links, which run in a thread of their own."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from chaos.nemesis import both_ways, others
from chaos.network import Links, behind_proxies
from chaos.testbed.cluster import Cluster

#: Decides which bytes are lost or late; a partition has none of these.
_SEED = 1

T = TypeVar("T")


class Partitions:
    """A context manager: enter it before the cluster starts, and leave it after its nodes have ended."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._stack = AsyncExitStack()
        self._links: Links

    def __enter__(self) -> Self:
        self._thread.start()
        self._links = self._run(self._stack.enter_async_context(behind_proxies(self._cluster, _SEED)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut_off(self, node: str) -> None:
        """Cuts this node off from the two others, both ways; bytes under way are lost."""
        self._run(self._links.cut(both_ways(node, others(node)), loses=True))

    def mend(self, node: str) -> None:
        self._run(self._links.mend(both_ways(node, others(node))))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
