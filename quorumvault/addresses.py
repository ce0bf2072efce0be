"""Where nodes are reached and where they listen: HOST:PORT texts of cluster.yaml into addresses that do not clash."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from quorumvault.errors import ConfigError
from quorumvault.model import NODE_NAMES

_HOST_PORT = re.compile(r"(?:(?P<bare>[A-Za-z0-9._-]+)|\[(?P<bracketed>[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)\]):(?P<port>[0-9]{1,9})")

HostPort = Annotated[str, msgspec.Meta(description="HOST:PORT")]


class NodeAddress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where one node is reached, as HOST:PORT, and where it listens if that differs."""

    api: HostPort
    peer: HostPort
    listen_api: HostPort | None = None
    listen_peer: HostPort | None = None


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


#: Listening on these is listening on every address of the machine.
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, never bound


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where one node is reached (``api``, ``peer``), and where it listens."""

    api: Address
    peer: Address
    listen_api: Address
    listen_peer: Address

    @property
    def source(self) -> str | None:
        """The host that this node binds when it connects to a peer, so that a firewall between two addresses cuts both ways.

        None if it listens on every address: the kernel chooses then.
        """
        return None if self.listen_peer.host in WILDCARDS else self.listen_peer.host


def parse_endpoints(file: Path, nodes: Mapping[str, NodeAddress]) -> dict[str, Endpoints]:
    if sorted(nodes) != list(NODE_NAMES):
        raise ConfigError(file, "nodes", f"expected exactly {', '.join(NODE_NAMES)}, not {', '.join(nodes) or 'none'}")
    found = {node: _node_endpoints(file, f"nodes.{node}", nodes[node]) for node in NODE_NAMES}
    _check_distinct(file, found)
    return found


def _node_endpoints(file: Path, key: str, node: NodeAddress) -> Endpoints:
    def address(name: str, text: str) -> Address:
        return parse_address(file, f"{key}.{name}", text)

    api, peer = address("api", node.api), address("peer", node.peer)
    listen_api = api if node.listen_api is None else address("listen_api", node.listen_api)
    listen_peer = peer if node.listen_peer is None else address("listen_peer", node.listen_peer)
    for name, advertised in (("api", api), ("peer", peer)):
        if advertised.host in WILDCARDS:
            raise ConfigError(file, f"{key}.{name}", f"expected an address that others can reach; put this one in listen_{name}")
    if listen_api.port == listen_peer.port and (
        listen_api.host == listen_peer.host or {listen_api.host, listen_peer.host} & set(WILDCARDS)
    ):
        raise ConfigError(file, key, f"expected two ports: API and peer port would both listen on {listen_peer.port}")
    return Endpoints(api, peer, listen_api, listen_peer)


def _check_distinct(file: Path, nodes: Mapping[str, Endpoints]) -> None:
    taken: dict[Address, str] = {}
    for node, endpoints in nodes.items():
        for name, address in (("api", endpoints.api), ("peer", endpoints.peer)):
            key = f"nodes.{node}.{name}"
            if address in taken:
                raise ConfigError(file, key, f"expected an address of its own: {taken[address]} has {address} too")
            taken[address] = key


def parse_address(where: Path, key: str, text: str) -> Address:
    """HOST:PORT, an IPv6 host in brackets. Raises ConfigError."""
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        raise ConfigError(where, key, "expected HOST:PORT, as in 127.0.0.1:8700 or [::1]:8700")
    host, port = match["bare"] or match["bracketed"], int(match["port"])
    if not 1 <= port <= 65_535:
        raise ConfigError(where, key, "expected a port from 1 to 65535")
    return Address(host, port)
