"""The rooms of the house: the package's folders, the purpose of each, and which of them need which others.

Arrows that follow from others are left out (transitive reduction: Aho, Garey and Ullman, "The Transitive Reduction of a Directed
Graph", 1972). The rooms of ``server/`` are drawn inside it, with the arrows between them.
"""

from collections.abc import Iterator

from tests.tools.test_house import Graph, floors, rooms

#: The rooms in reading order: from those that an operator sees down to those that the others rest on.
PURPOSES = {
    "": {
        "testing": "a vault in memory, pytest's fixtures",
        "cli": "one module per command",
        "import quorumvault": "the names that callers use",
        "server": "what a node runs",
        "files": "whole files, all or nothing",
        "analytics": "Arrow, DuckDB, dbt, Spark",
        "client": "tokens and values over HTTP",
        "config": "cluster.yaml, keys, secrets",
        "protocol": "the rules, without IO",
        "formats": "exact readers and writers",
        "crypto": "values to tokens, sealing",
        "words": "errors, owners, safe files",
    },
    "server": {
        "node": "starts, stops, wires it all",
        "offline": "for nodes that are stopped",
        "http": "routes, one module per endpoint",
        "backup": "all committed records, one file",
        "telemetry": "event log and metrics",
        "healing": "repairs replicas that differ",
        "replica": "one gate to this node's copy",
        "coordinator": "asks all three, decides by two",
        "peers": "handshake, frames, links",
        "storage": "LevelDB and the disk's identity",
        "tls": "OpenSSL, as bytes in and out",
    },
}


def draw() -> str:
    """D2 text of one container."""
    lines = ['rooms: "The house: rooms are folders; an arrow leads to what a room needs" {']
    for room in _of(""):
        if room in PURPOSES:
            style = '{style.fill: "#eef3f9"; style.font-size: 24'
            lines += [f'  "{room}": "{room}/  {PURPOSES[""][room]}" {style}', *_container(room), "  }"]
        else:
            lines.append(f"  {_box('', room)}")
    lines += [f"  {arrow}" for arrow in _arrows(rooms(""))]
    return "\n".join([*lines, "}\n"])


def _container(folder: str) -> Iterator[str]:
    for room in _of(folder):
        yield f"    {_box(folder, room)}"
    for arrow in _arrows(rooms(folder)):
        yield f"    {arrow}"


def _of(folder: str) -> list[str]:
    """The rooms to draw of a folder, the highest floor first. Raises KeyError for a room without a purpose."""
    floor = floors(rooms(folder))
    return sorted(floor, key=lambda room: (-floor[room], list(PURPOSES[folder]).index(room)))


def _box(folder: str, room: str) -> str:
    slash = "" if room in ("words", "import quorumvault", "tls") else "/"
    return f'"{room}": "{room}{slash}\\n{PURPOSES[folder][room]}" {{class: room}}'


def _arrows(graph: Graph) -> list[str]:
    return [f'"{start}" -> "{end}"' for start, ends in sorted(reduced(graph).items()) for end in sorted(ends)]


def reduced(graph: Graph) -> dict[str, set[str]]:
    """Returns the graph without each edge whose ends a longer path connects. ``graph`` has no cycles."""
    return {
        start: {end for end in ends if not any(end in _reachable(graph, other) for other in ends - {end})}
        for start, ends in graph.items()
    }


def _reachable(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    ahead = [start]
    while ahead:
        for end in graph.get(ahead.pop(), set()) - found:
            found.add(end)
            ahead.append(end)
    return found
