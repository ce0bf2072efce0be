"""The modules of the package by layer and folder, and which folder needs which.

The layers are those that a test holds every import to. Arrows that follow from others are left out (transitive reduction: Aho,
Garey and Ullman, "The Transitive Reduction of a Directed Graph", 1972).
"""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence

from tests.tools.test_house import LAYERS, MODULES, PACKAGE, imports, layer_of

#: Layer and folder; modules that are in none of the folders have the folder "".
Box = tuple[int, str]
Graph = Mapping[Box, set[Box]]

_COLUMNS = 40


def draw() -> str:
    """D2 text of one container."""
    boxes: dict[Box, list[str]] = defaultdict(list)
    needs: dict[Box, set[Box]] = defaultdict(set)
    for module in PACKAGE:
        box = _box(module)
        boxes[box].append(module)
        needs[box] |= {_box(name) for name in imports(MODULES[module]) if name in PACKAGE} - {box}
    lines = [f"  {_key(box)}: {_label(box, boxes[box])} {{class: part}}" for box in sorted(boxes, reverse=True)]
    for start, ends in sorted(reduced(needs).items(), reverse=True):
        lines += [f"  {_key(start)} -> {_key(end)}" for end in sorted(ends)]
    return "\n".join(('modules: "The package by folder, and who imports whom" {', *lines, "}\n"))


def reduced(graph: Graph) -> dict[Box, set[Box]]:
    """Without the edges that a longer way makes unnecessary. ``graph`` has no cycles."""
    return {
        start: {end for end in ends if not any(end in _reachable(graph, other) for other in ends - {end})}
        for start, ends in graph.items()
    }


def _reachable(graph: Graph, start: Box) -> set[Box]:
    found: set[Box] = set()
    ahead = [start]
    while ahead:
        for end in graph.get(ahead.pop(), ()):
            if end not in found:
                found.add(end)
                ahead.append(end)
    return found


def _box(module: str) -> Box:
    layer = layer_of(module)
    assert layer is not None, f"{module} has no layer"
    folder, dot, _ = module.removeprefix("quorumvault.").partition(".")
    is_folder = dot or any(name.startswith(f"{module}.") for name in PACKAGE)
    return layer, folder if is_folder else ""


def _key(box: Box) -> str:
    layer, folder = box
    return f"{LAYERS[layer][0]}-{folder}" if folder else LAYERS[layer][0]


def _label(box: Box, modules: Sequence[str]) -> str:
    """The folder, and under it the modules in it, as a quoted string."""
    _, folder = box
    names = [module.rpartition(".")[2] for module in modules if module != f"quorumvault.{folder}"]
    heading = f"{folder}/" if folder else ""
    return '"' + r"\n".join((heading, *textwrap.wrap("  ".join(names), _COLUMNS))).strip(r"\n") + '"'
