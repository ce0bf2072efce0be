"""A running cluster as the kernel sees it: where each process listens, what it is connected to, and its files.

Read from /proc/PID/fd and /proc/net/tcp (proc(5)). A node does not let other processes of its user inspect it, so root is needed.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from itertools import starmap
from pathlib import Path
from typing import NamedTuple

from chaos.testbed.cluster import PORT_OFFSETS, Cluster

#: The first port that ``quorumvault init`` uses by default. The cluster runs on free ports, drawn as if it had started here.
_FIRST_PORT = 8700
_PEER_OFFSET = 10
_LISTENS = "0A"
_SHARED = ("cluster.yaml", "fields.yaml", "api_keys.yaml", "secrets")
#: LevelDB's files are numbered.
_NUMBER = re.compile(r"\d{6}")


class Socket(NamedTuple):
    """The ports of a TCP socket on this machine; ``remote`` is 0 while it listens."""

    local: int
    remote: int


def draw(cluster: Cluster) -> str:
    """D2 text of one container."""
    first = min(int(node.address.rpartition(":")[2]) for node in cluster.nodes.values())
    tcp = _tcp_sockets()
    opened = {name: _open_files(cluster.pid(name)) for name in cluster.nodes}
    sockets = {name: {tcp[link] for link in opened[name] if link in tcp} for name in cluster.nodes}
    listeners = {socket.local: name for name in cluster.nodes for socket in sockets[name] if not socket.remote}
    assert {port - first for port in listeners} == set(PORT_OFFSETS), listeners
    lines: list[str] = []
    for name in cluster.nodes:
        ports = sorted(port - first for port, listener in listeners.items() if listener == name)
        links = sorted(
            (listeners[socket.remote], socket.remote - first) for socket in sockets[name] if socket.remote in listeners
        )
        files = _file_rows(cluster.directory, cluster.directory / name, opened[name])
        lines += _table(name, f"{name}, a process", [*map(_port_row, ports), *starmap(_link_row, links), *files])
    shared = [row for path in _SHARED for row in _file_rows(cluster.directory, cluster.directory / path, set())]
    lines += _table("shared", "Read by all three at start", shared)
    return "\n".join(('running: "Three nodes on one machine, as init makes them" {', "  grid-rows: 2", *lines, "}\n"))


def _table(key: str, title: str, rows: Iterable[tuple[str, str]]) -> list[str]:
    cells = [f'    "{left}": "{right}"' for left, right in dict(rows).items()]
    return [f'  {key}: "{title}" {{', "    shape: sql_table", *cells, "  }"]


def _port_row(offset: int) -> tuple[str, str]:
    return f"TCP {_FIRST_PORT + offset}", "listens to its peers" if offset >= _PEER_OFFSET else "listens to clients"


def _link_row(peer: str, offset: int) -> tuple[str, str]:
    return f"TCP to {_FIRST_PORT + offset}", f"its link to {peer}"


def _file_rows(directory: Path, path: Path, opened: set[str]) -> Iterator[tuple[str, str]]:
    """The files at or below ``path``: name and mode, and whether the process has it open."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        status = file.stat()
        if stat.S_ISDIR(status.st_mode):
            continue
        name = _NUMBER.sub("n", str(file.relative_to(directory)))
        how = "listens to the operator" if stat.S_ISSOCK(status.st_mode) else "held open" if str(file) in opened else ""
        yield name, f"{stat.S_IMODE(status.st_mode):04o} {how}".strip()


def _open_files(pid: int) -> set[str]:
    """Returns the paths and sockets that a process has open."""
    descriptors = Path(f"/proc/{pid}/fd")
    return {os.readlink(descriptor) for descriptor in descriptors.iterdir()}


def _tcp_sockets() -> dict[str, Socket]:
    """Returns all IPv4 sockets of this machine, by the name that a descriptor links to."""
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *rest = line.split()
        ports = [int(address.rpartition(":")[2], 16) for address in (local, remote)]
        found[f"socket:[{rest[5]}]"] = Socket(ports[0], 0 if state == _LISTENS else ports[1])
    return found
