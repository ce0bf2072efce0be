"""The rules of the house, enforced: who may import whom, how long a function may get, and what no file may contain."""

import ast
import functools
import graphlib
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from tests import ROOT

#: From the bottom up: a module imports from its own layer and from those before it. The longest name that matches counts;
#: a module that matches no name has to be given a place here.
LAYERS = (
    ("words", ("model", "errors", "durable", "ownership", "crypto", "formats")),
    ("config", ("config",)),
    ("protocol", ("protocol",)),
    ("storage", ("server", "server.storage")),
    ("peers", ("server.peers",)),
    ("replica", ("server.replica",)),
    ("coordinator", ("server.coordinator",)),
    ("healing", ("server.healing",)),
    ("telemetry", ("server.telemetry",)),
    ("http", ("server.http",)),
    ("backup", ("server.backup",)),
    ("node", ("server.node",)),
    ("offline", ("server.offline",)),
    ("client", ("client", "analytics", "__init__")),
    ("files", ("files",)),
    ("testing", ("testing",)),
    ("commands", ("cli", "__main__")),
)

#: What a part of the project may import of it, where that is less than its layer allows. Clients of the API share with the
#: server the list of errors and the rules of when two values are the same. Parts that judge from outside share nothing at all.
ONLY = {
    "quorumvault.analytics": ("quorumvault.analytics", "quorumvault.client", "quorumvault.errors", "quorumvault.crypto.tokens"),
    "quorumvault.client": (
        "quorumvault.client",
        "quorumvault.errors",
        "quorumvault.crypto.canonical",
        "quorumvault.crypto.tokens",
    ),
    "quorumvault.files": (
        *("quorumvault.files", "quorumvault.analytics", "quorumvault.client", "quorumvault.crypto", "quorumvault.durable"),
        *("quorumvault.errors", "quorumvault.formats", "quorumvault.ownership"),
    ),
    "quorumvault.protocol": ("quorumvault.protocol", "quorumvault.crypto", "quorumvault.model", "quorumvault.errors"),
    "chaos": ("chaos",),
    "chaos.autopsy": ("chaos", "quorumvault.server.storage.binding"),  # LevelDB's name, to read disks without a node
    "bench": ("bench", "chaos", "quorumvault.analytics", "quorumvault.client"),  # the last two are among what it measures
    "bench.floor": (
        "bench",
        "quorumvault.server.storage.binding",
    ),  # it says which of LevelDB's bindings is installed, and nothing more
    "bench.postgres.api": ("bench", "chaos", "quorumvault"),  # it hashes, seals and looks keys up as nodes do
    "bench.requests": ("bench", "quorumvault"),  # it drives the application that nodes serve, without a node
    "bench.healing.stores": ("bench", "quorumvault"),  # it makes what nodes would have written, with the nodes' own code
}

#: The protocol is pure: same state and same input, same output. Time, randomness, network and disk are arguments.
IMPURE = {
    "asyncio", "concurrent", "datetime", "io", "logging", "os", "pathlib", "plyvel", "random", "secrets", "select", "selectors",
    "signal", "socket", "subprocess", "sys", "tempfile", "threading", "time", "uuid",
}  # fmt: skip

#: Maximum number of floors (see ``floors``), in the package and in its server.
FLOORS = 8
#: Maximum number of folders and modules in the package's root, without those that Python and the packager look for.
ROOT_NAMES = 14
UNCOUNTED = {"__init__.py", "__main__.py", "__pycache__", "py.typed", "samples"}

FUNCTION_LINES = 50
MODULE_LINES = 400
#: Postponed work; and in tests, ways not to run one.
LEFTOVER = re.compile(r"\b(?:TODO|FIXME|XXX)\b|NotImplementedError|\bfor now\b")
NOT_RUN = re.compile(r"pytest\.(?:skip|importorskip)|mark\.(?:skip|skipif|xfail|flaky)\b")
#: The address of a package index, or a path on somebody's machine.
FOREIGN = re.compile(
    r"(?:index|find-links)[-_]?url\s*[=\s]\s*\S*://|https?://[\w.:-]+/simple\b|/(?:home|Users)/\w|" + re.escape(f"{ROOT}/")
)
NOT_OURS = {"__pycache__", "build", "dist"}


def _walk(directory: Path) -> Iterator[Path]:
    """The files of the checkout that git does not ignore."""
    for path in sorted(directory.iterdir()):
        hidden = path.name.startswith(".") and path.name not in {".ci", ".gitignore"}
        if hidden or path.name in NOT_OURS or path.suffix == ".egg-info":
            continue
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


FILES = list(_walk(ROOT))
PYTHON = [path for path in FILES if path.suffix == ".py"]
SOURCE = [path for path in PYTHON if path.relative_to(ROOT).parts[0] != "tests"]


def _module_name(path: Path) -> str:
    """``quorumvault.server.http.routes``; a package has its own name, except the root one, ``quorumvault.__init__``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


MODULES = {_module_name(path): path for path in SOURCE}


@functools.cache
def _nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_bytes())))


def imports(module: str) -> Iterator[str]:
    """All that a module of ``MODULES`` imports anywhere, including in functions and for type checking."""
    for node in _nodes(MODULES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def _fits(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def layer_of(module: str) -> int | None:
    """Returns the number of a module's layer; None if it has no place."""
    inner = "__init__" if module == "quorumvault" else module.removeprefix("quorumvault.")
    places = [(len(name), place) for place, (_, names) in enumerate(LAYERS) for name in names if _fits(inner, (name,))]
    return max(places)[1] if places else None


Graph = Mapping[str, set[str]]


def rooms(folder: str) -> Graph:
    """Returns, for each room of the package, or of a folder in it, which rooms it needs. Folders and single modules are rooms.

    The root's own modules are one room, "words", except the public names (``import quorumvault``) and the command.
    """
    inside = f"quorumvault.{folder}." if folder else "quorumvault."
    named = {"__init__": "import quorumvault", "__main__": "cli"}
    graph: dict[str, set[str]] = defaultdict(set)

    def room_of(module: str) -> str | None:
        name, dot, _ = module.removeprefix(inside).partition(".")
        if not module.startswith(inside):
            return None
        if folder or dot or any(other.startswith(f"{inside}{name}.") for other in PACKAGE):
            return name
        return named.get(name, "words")

    for module in PACKAGE:
        room = room_of(module)
        if room is not None:
            graph[room] |= {other for name in imports(module) if (other := room_of(name))} - {room}
    return graph


def floors(graph: Graph) -> dict[str, int]:
    """The floor of each room: one above the highest floor that it needs. Raises graphlib.CycleError."""
    found: dict[str, int] = {}
    for room in graphlib.TopologicalSorter(graph).static_order():
        found[room] = 1 + max((found[other] for other in graph[room]), default=0)
    return found


PACKAGE = sorted(name for name in MODULES if name.startswith("quorumvault."))


def test_imports_point_down() -> None:
    for module in PACKAGE:
        own = layer_of(module)
        assert own is not None, f"{module} is in no layer: give it a place in LAYERS"
        for imported in imports(module):
            assert not _fits(imported, ("chaos", "bench", "tests")), f"{module} imports {imported}"
            if _fits(imported, ("quorumvault",)):
                other = layer_of(imported)
                assert other is not None, f"{module} imports {imported}, which is in no layer"
                assert other <= own, f"{module} ({LAYERS[own][0]}) imports {imported} ({LAYERS[other][0]})"


def test_no_module_needs_itself() -> None:
    graph = {module: [name for name in imports(module) if name in MODULES and name != module] for module in MODULES}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) >= len(MODULES)


@pytest.mark.parametrize("folder", ["", "server"])
def test_the_house_has_few_floors_and_no_circle(folder: str) -> None:
    assert 3 < max(floors(rooms(folder)).values()) <= FLOORS


def test_the_root_has_few_names() -> None:
    names = {path.name for path in (ROOT / "quorumvault").iterdir()} - UNCOUNTED
    assert len(names) <= ROOT_NAMES, sorted(names)


@pytest.mark.parametrize("part", ONLY)
def test_a_part_imports_only_what_it_may(part: str) -> None:
    inner = [name for name in ONLY if name != part and _fits(name, (part,))]
    modules = [name for name in MODULES if _fits(name, (part,)) and not _fits(name, tuple(inner))]
    assert modules
    for module in modules:
        ours = [name for name in imports(module) if _fits(name, ("quorumvault", "chaos", "bench", "tests"))]
        assert [name for name in ours if not _fits(name, ONLY[part])] == [], module


def test_the_protocol_is_pure() -> None:
    for module in PACKAGE:
        if _fits(module, ("quorumvault.protocol",)):
            assert {name.partition(".")[0] for name in imports(module)} & IMPURE == set(), module


def test_source_fits_a_head() -> None:
    for path in SOURCE:
        text = path.read_text()
        assert text.count("\n") <= MODULE_LINES, path
        assert not LEFTOVER.search(text), path
        functions = [node for node in _nodes(path) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        assert [node.name for node in functions if (node.end_lineno or 0) - node.lineno >= FUNCTION_LINES] == [], path


def test_every_test_runs() -> None:
    """Except one module, which needs root and namespaces, and says so where it lacks either."""
    for path in set(PYTHON) - set(SOURCE) - {Path(__file__), ROOT / "tests" / "cluster" / "test_three_hosts.py"}:
        assert not NOT_RUN.search(path.read_text()), path


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    for path in FILES:
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # not text
        found = FOREIGN.search(text)
        assert found is None, f"{path}: {found[0]}"


def _pins(name: str) -> dict[str, str]:
    """The package and version in each line of a lock file."""
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[^]]*\])?==([^ ;]+)", (ROOT / name).read_text(), re.MULTILINE))


def _wanted(lines: Iterable[object]) -> set[str]:
    """The packages that a list of the project names, without the groups that it includes."""
    return {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower().replace("_", "-") for line in lines if isinstance(line, str)}


def test_lock_files_agree_with_the_project_and_with_each_other() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups, optional = project["dependency-groups"], project["project"]["optional-dependencies"]
    runtime, development, extras = _pins("requirements.txt"), _pins("requirements-dev.txt"), _pins("requirements-extras.txt")
    tests, analytics = _wanted(groups["test"]), _wanted(optional["analytics"])
    assert _wanted(project["project"]["dependencies"]) <= runtime.keys(), "run bin/lock"
    assert runtime.items() <= development.items()
    assert runtime.items() <= extras.items()
    assert tests | analytics | _wanted(groups["dev"]) <= development.keys(), "run bin/lock"
    others = _wanted(optional["cloud"]) | _wanted(optional["dbt"]) | _wanted(optional["spark"])
    assert others - {"quorumvault"} <= extras.keys(), "run bin/lock"
    # The versions tested with dbt and Spark are those tested without them; dbt only holds back other packages. Spark holds
    # back pandas, so frames are tested with both versions.
    shared = (tests | analytics) - {"pandas"}
    assert {name: extras.get(name) for name in shared} == {name: development[name] for name in shared}
    assert extras["pandas"].split(".")[0] == "2" != development["pandas"].split(".")[0]
