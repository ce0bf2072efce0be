"""A cluster that runs, as the kernel sees it: who listens where, who is connected to whom, and which files there are.

Read from /proc/PID/fd and /proc/net/tcp (proc(5)). A node forbids other processes of its user to look into it, so this takes root.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from chaos.cluster import PORT_OFFSETS, Cluster

#: Where ``quorumvault init`` begins if it is not told otherwise; a port that was free is drawn as the one in its place.
_FIRST_PORT = 8700
_PEER_OFFSET = 10
_LISTENS = "0A"
#: LevelDB's files are numbered.
_NUMBER = re.compile(r"\d{6}")


class Socket(NamedTuple):
    """The ports of a TCP socket on this machine; ``remote`` is 0 while it listens."""

    local: int
    remote: int


def draw(cluster: Cluster) -> str:
    """D2 text of one container."""
    first = min(int(node.address.rpartition(":")[2]) for node in cluster.nodes.values())
    listens: dict[int, str] = {}
    dials: list[tuple[str, int]] = []
    lines: list[str] = []
    tcp = _tcp_sockets()
    for name in cluster.nodes:
        opened = _open_files(cluster.pid(name))
        sockets = [tcp[link] for link in opened if link in tcp]
        offsets = sorted(socket.local - first for socket in sockets if not socket.remote)
        assert set(offsets) <= set(PORT_OFFSETS), offsets
        listens |= {socket.local: name for socket in sockets if not socket.remote}
        dials += [(name, socket.remote) for socket in sockets]
        rows = [*map(_port_row, offsets), *_file_rows(cluster.directory, cluster.directory / name, opened)]
        lines += _table(name, f"{name}, a process", rows)
    shared = [row for path in _SHARED for row in _file_rows(cluster.directory, cluster.directory / path, set())]
    lines += _table("shared", "all three read, at start", shared)
    links = {(name, listens[port]) for name, port in dials if port in listens}
    lines += [f"  {one} <-> {other}: a link each way" for one, other in sorted(links) if one < other and (other, one) in links]
    return "\n".join(("running: three nodes on one machine, as init makes them {", *lines, "}\n"))


_SHARED = ("cluster.yaml", "fields.yaml", "api_keys.yaml", "secrets")


def _table(key: str, title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    cells = [f'    "{left}": "{right}"' for left, right in rows]
    return [f'  {key}: "{title}" {{', "    shape: sql_table", *cells, "  }"]


def _port_row(offset: int) -> tuple[str, str]:
    return f"TCP {_FIRST_PORT + offset}", "its peers" if offset >= _PEER_OFFSET else "clients"


def _file_rows(directory: Path, path: Path, opened: set[str]) -> Iterator[tuple[str, str]]:
    """The files at or below ``path``: name and mode, and whether the process has it open."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        status = file.stat()
        if stat.S_ISDIR(status.st_mode):
            continue
        name = _NUMBER.sub("n", str(file.relative_to(directory)))
        how = "the operator" if stat.S_ISSOCK(status.st_mode) else "held open" if str(file) in opened else ""
        yield name, f"{stat.S_IMODE(status.st_mode):04o} {how}".strip()


def _open_files(pid: int) -> set[str]:
    """What the descriptors of a process lead to."""
    descriptors = Path(f"/proc/{pid}/fd")
    return {os.readlink(descriptor) for descriptor in descriptors.iterdir()}


def _tcp_sockets() -> dict[str, Socket]:
    """All IPv4 sockets of this machine, by what a descriptor of theirs leads to."""
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *rest = line.split()
        ports = [int(address.rpartition(":")[2], 16) for address in (local, remote)]
        found[f"socket:[{rest[5]}]"] = Socket(ports[0], 0 if state == _LISTENS else ports[1])
    return found
