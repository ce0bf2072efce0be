"""Where the nodes of a run are: on loopback behind proxies, for any user, or in network namespaces of their own, as root."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import yaml

from chaos.links import Links
from chaos.network import Network
from chaos.testbed.cluster import NODES, Cluster
from chaos.workload import OWNERS

#: (an empty directory, the run's seed) → a cluster in it that was not started yet, and what is between its nodes.
Site = Callable[[Path, int], AbstractAsyncContextManager[tuple[Cluster, Network]]]


@contextlib.asynccontextmanager
async def on_loopback(place: Path, seed: int) -> AsyncIterator[tuple[Cluster, Network]]:
    with Cluster.create(place / "cluster", OWNERS) as cluster:
        async with behind_proxies(cluster, seed) as links:
            try:
                yield cluster, links
            finally:
                cluster.close()


@contextlib.asynccontextmanager
async def behind_proxies(cluster: Cluster, seed: int) -> AsyncIterator[Links]:
    """The cluster was not started yet: each node gets a configuration in which its peers' addresses are those of its proxies."""
    settings = yaml.safe_load((cluster.directory / "cluster.yaml").read_text())
    links = Links({name: _host_port(settings["nodes"][name]["peer"]) for name in NODES}, seed)
    await links.open()
    try:
        for name, node in cluster.nodes.items():
            node.config = f"cluster-{name}.yaml"
            (cluster.directory / node.config).write_text(_view_of(name, settings, links))
        yield links
    finally:
        await links.close()


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _view_of(name: str, settings: dict[str, object], links: Links) -> str:
    nodes = settings["nodes"]
    assert isinstance(nodes, dict)
    seen = {other: entry if other == name else {**entry, "peer": links.address(name, other)} for other, entry in nodes.items()}
    return yaml.safe_dump({**settings, "nodes": seen}, sort_keys=False)
