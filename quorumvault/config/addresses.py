"""The addresses at which nodes are reached and listen: parses the HOST:PORT texts of cluster.yaml, checks that they do not clash,
and plans the addresses of a new cluster."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from quorumvault.errors import ConfigError
from quorumvault.model import NODE_NAMES

_HOST_PORT = re.compile(r"(?:(?P<bare>[A-Za-z0-9._-]+)|\[(?P<bracketed>[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)\]):(?P<port>[0-9]{1,9})")
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")

#: The distance of peer ports above API ports, which leaves room for a few of either.
PEER_OFFSET = 10
#: The ports that a cluster on one host takes, from its base port on: three for the API, three between nodes.
PORT_OFFSETS = tuple(first + number for first in (0, PEER_OFFSET) for number in range(len(NODE_NAMES)))
#: The largest base port at which the last peer port is still a valid port.
MAX_BASE_PORT = 65_535 - PORT_OFFSETS[-1]

HostPort = Annotated[str, msgspec.Meta(description="HOST:PORT")]


class NodeAddress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The addresses of one node in cluster.yaml, as HOST:PORT: where it is reached, and where it listens, if that differs."""

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


def is_loopback(address: Address) -> bool:
    """True if only this machine can reach the address."""
    try:
        return ip_address(address.host).is_loopback
    except ValueError:
        return address.host == "localhost"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The addresses of one node: where it is reached (``api``, ``peer``), and where it listens."""

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
    """Parse HOST:PORT, with an IPv6 host in brackets. Raises ConfigError."""
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        raise ConfigError(where, key, "expected HOST:PORT, as in 127.0.0.1:8700 or [::1]:8700")
    host, port = match["bare"] or match["bracketed"], int(match["port"])
    if not 1 <= port <= 65_535:
        raise ConfigError(where, key, "expected a port from 1 to 65535")
    return Address(host, port)


def plan_nodes(hosts: Sequence[str], base_port: int) -> dict[str, Endpoints]:
    """The addresses of three nodes: on one host, each with its own ports, or on three hosts, with the same ports.

    Raises ValueError, which says what is wrong with the hosts or the port.
    """
    for host in hosts:
        check_host(host)
    if len(set(hosts)) != len(hosts) or len(hosts) not in (1, len(NODE_NAMES)):
        raise ValueError(f"expected one host for all nodes, or {len(NODE_NAMES)} different ones separated by commas")
    if not 1 <= base_port <= MAX_BASE_PORT:
        raise ValueError(f"expected a base port from 1 to {MAX_BASE_PORT}")
    if len(hosts) == 1:
        places = [(hosts[0], base_port + number) for number in range(len(NODE_NAMES))]
    else:
        places = [(host, base_port) for host in hosts]
    return {node: _at(host, port) for node, (host, port) in zip(NODE_NAMES, places, strict=True)}


def _at(host: str, port: int) -> Endpoints:
    api, peer = Address(host, port), Address(host, port + PEER_OFFSET)
    return Endpoints(api, peer, listen_api=api, listen_peer=peer)


def check_host(host: str) -> None:
    """Raises ValueError unless ``host`` is a name, or an address of one machine."""
    if host in WILDCARDS:
        raise ValueError(f"{host} is no address that others can reach; name the host, and set listen_api in cluster.yaml")
    if ":" in host:
        if "%" in str(ip_address(host)):
            raise ValueError(f"{host!r} has a scope, which means something on one machine alone")
    elif not _HOST_NAME.fullmatch(host) or len(host) > 253:
        raise ValueError(f"{host!r} is neither an IP address nor a host name")
