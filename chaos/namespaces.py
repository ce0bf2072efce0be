"""Three hosts on one machine: network namespaces joined by a bridge, with nftables to drop packets. Needs root.

    <run>-hub   the bridge, and the whole harness
    <run>-n1    n1, at 10.77.0.1; its rules drop packets from a peer whose wire to n1 is cut
    …

A cut here behaves like a cut cable: packets are lost, TCP sends them again, and a new connection gets no answer. Packet loss is
real as well. Late and duplicate packets need netem, which most containers lack, or proxies (network.py).

A process outside the namespaces makes them, waits for the run, and removes them however the run ends.
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from pathlib import Path

from chaos.nemesis import Wire
from chaos.network import Network, Weather
from chaos.testbed.cluster import NODES, Cluster
from chaos.testbed.host import Unavailable, tool
from chaos.workload import OWNERS

#: The environment variable with the prefix of the namespaces' names, set by the process that made them.
VARIABLE = "CHAOS_NAMESPACES"
_ADDRESSES = {name: f"10.77.0.{number}" for number, name in enumerate(NODES, 1)}
_HUB_ADDRESS = "10.77.0.254"
_BASE_PORT = 8700
_TABLE = """
table inet chaos {
  chain arriving { type filter hook input priority 0; policy accept; }
}
"""


def run_inside(arguments: Sequence[str]) -> int:
    """Runs this harness with these arguments in new namespaces. Returns its exit code. Raises Unavailable."""
    if os.geteuid() != 0:
        raise Unavailable("network namespaces are made by root alone; run it as root, or without --net namespaces")
    missing = [tool for tool in ("ip", "nft") if shutil.which(tool) is None]
    if missing:
        raise Unavailable(f"{' and '.join(missing)} not found: install iproute2 and nftables, or run it without --net namespaces")
    prefix = f"chaos{os.getpid()}"
    with _namespaces(prefix):
        inside = ["ip", "netns", "exec", f"{prefix}-hub", sys.executable, "-P", "-m", "chaos", *arguments]
        with subprocess.Popen(inside, env={**os.environ, VARIABLE: prefix}) as process:
            try:
                return process.wait()
            except BaseException:
                process.terminate()
                raise


@contextlib.contextmanager
def _namespaces(prefix: str) -> Iterator[None]:
    hub = f"{prefix}-hub"
    made: list[str] = []
    try:
        for name in (hub, *(f"{prefix}-{node}" for node in NODES)):
            tool("ip", "netns", "add", name)
            made.append(name)
            tool("ip", "-n", name, "link", "set", "lo", "up")
        tool("ip", "-n", hub, "link", "add", "bridge", "type", "bridge")
        tool("ip", "-n", hub, "addr", "add", f"{_HUB_ADDRESS}/24", "dev", "bridge")
        tool("ip", "-n", hub, "link", "set", "bridge", "up")
        for node, address in _ADDRESSES.items():
            there = f"{prefix}-{node}"
            tool("ip", "-n", hub, "link", "add", node, "type", "veth", "peer", "name", "eth0", "netns", there)
            tool("ip", "-n", hub, "link", "set", node, "master", "bridge", "up")
            tool("ip", "-n", there, "addr", "add", f"{address}/24", "dev", "eth0")
            tool("ip", "-n", there, "link", "set", "eth0", "up")
        yield
    finally:
        for name in made:
            tool("ip", "netns", "del", name)


class Firewalls:
    """Rules in each node's namespace. Implements Network."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._verdicts: dict[Wire, str] = {}

    async def cut(self, wires: Collection[Wire], *, loses: bool) -> None:
        """Drops the packets of these wires. Bytes are lost only once an end of the TCP connection gives up."""
        await self._set(dict.fromkeys(wires, "drop"))

    async def disturb(self, wires: Collection[Wire], weather: Weather) -> None:
        if weather.delay or weather.twice or not weather.loss:
            raise Unavailable("packets in network namespaces can be lost, and neither be late nor come twice")
        lost = f"numgen random mod 1000 < {int(weather.loss * 1000)} drop"
        await self._set(dict.fromkeys(wires, lost))

    async def mend(self, wires: Collection[Wire]) -> None:
        for wire in wires:
            self._verdicts.pop(wire, None)
        await self._set({})

    async def move(self, node: str, address: tuple[str, int] | None) -> None:
        if address is not None:
            raise Unavailable("in network namespaces each node is at its own address")

    async def _set(self, verdicts: dict[Wire, str]) -> None:
        """Sets all rules of each node in one transaction."""
        self._verdicts |= verdicts
        for node in NODES:
            rules = [
                f"add rule inet chaos arriving ip saddr {_ADDRESSES[source]} {verdict}"
                for (source, target), verdict in sorted(self._verdicts.items())
                if target == node
            ]
            await self.load(node, "\n".join(["flush chain inet chaos arriving", *rules, ""]))

    async def load(self, node: str, rules: str) -> None:
        command = ("ip", "netns", "exec", f"{self._prefix}-{node}", "nft", "-f", "-")
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        _, errors = await process.communicate(rules.encode())
        if process.returncode != 0:
            raise Unavailable(f"nft in the namespace of {node}: {errors.decode().strip()}")


@contextlib.asynccontextmanager
async def in_namespaces(place: Path, seed: int) -> AsyncIterator[tuple[Cluster, Network]]:
    """Yields a site (network.py), inside ``run_inside``. It draws no random numbers, so the seed has no effect."""
    prefix = os.environ[VARIABLE]
    firewalls = Firewalls(prefix)
    for name in NODES:
        await firewalls.load(name, _TABLE)
    hosts = tuple(_ADDRESSES.values())
    with Cluster.create(place / "cluster", OWNERS, base_port=_BASE_PORT, hosts=hosts) as cluster:
        ip = shutil.which("ip")
        assert ip is not None
        for name, node in cluster.nodes.items():
            node.within = (ip, "netns", "exec", f"{prefix}-{name}")
        yield cluster, firewalls
