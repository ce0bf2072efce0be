"""docs/operations.md has a row for every state, event, exit code, warning and reason to wait that a node can show.

The tests collect these texts from the syntax of the code, so a text that is added there without a row in the page fails a test.
Alerts and metrics: tests/tools/test_alerts.py.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import quorumvault
from quorumvault.cli.main import ERROR, USAGE
from quorumvault.cli.serve import NOT_THERE
from quorumvault.server.node import health
from quorumvault.server.node.disk import STORAGE_EXIT
from quorumvault.server.telemetry.metrics import STATES
from tests import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text()


def rows(titles: str) -> list[str]:
    """The first cells of the table with these column titles."""
    _, found, rest = PAGE.partition(f"\n| {titles} |\n")
    assert found, titles
    table = re.match(r"(?:\|.*\n)+", rest)
    assert table, titles
    return [line.split("|")[1].strip() for line in table.group().splitlines()[1:]]


def arguments(function: str) -> Iterator[tuple[str | None, ast.expr]]:
    """Yields the arguments of all calls of a function in the package: the keyword, if there is one, and the expression."""
    for path in Path(quorumvault.__path__[0]).rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name | ast.Attribute):
                name = call.func.id if isinstance(call.func, ast.Name) else call.func.attr
                if name == function:
                    yield from ((None, expression) for expression in call.args)
                    yield from ((keyword.arg, keyword.value) for keyword in call.keywords)


def texts(expression: ast.expr) -> set[str]:
    """Returns patterns of the texts that an expression may give: its strings, with a wildcard wherever a value is inserted."""
    if isinstance(expression, ast.IfExp):
        return texts(expression.body) | texts(expression.orelse)
    if isinstance(expression, ast.JoinedStr):
        return {"".join(re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".+" for part in expression.values)}
    return {re.escape(expression.value)} if isinstance(expression, ast.Constant) and isinstance(expression.value, str) else set()


def all_have_rows(patterns: set[str], cells: list[str]) -> bool:
    missing = {pattern for pattern in patterns if not any(re.fullmatch(pattern, cell) for cell in cells)}
    assert not missing
    return bool(patterns)


def test_every_state_has_a_row_and_nothing_else_has() -> None:
    assert sorted(rows("state | is")) == sorted(f"`{state}`" for state in STATES)


@pytest.mark.slow
def test_every_event_that_nodes_write_of_themselves_has_a_row() -> None:
    cells = [name for cell in rows("event | is") for name in re.findall(r"`(\w+)`", cell)]
    known = {pattern for keyword, value in arguments("Event") if keyword == "event" for pattern in texts(value)}
    assert {"join_done", "disk_has_room", "scrub"} <= known
    assert all_have_rows(known, cells)
    assert set(cells) == known


@pytest.mark.slow
def test_everything_that_a_joining_disk_waits_for_has_a_row() -> None:
    known = {pattern for _, value in arguments("Wait") for pattern in texts(value)}
    known |= {pattern for keyword, value in arguments("_show") if keyword == "waits_for" for pattern in texts(value)}
    assert len(known) > 4
    assert all_have_rows(known, rows("waits for | what to do"))


def test_every_warning_about_a_peer_has_a_row() -> None:
    differences = ast.parse(inspect.getsource(health._differences))
    known = {pattern for each in ast.walk(differences) if isinstance(each, ast.JoinedStr) for pattern in texts(each)}
    assert len(known) > 3
    assert all_have_rows(known, rows("warning | what to do"))


def test_every_exit_code_of_a_node_has_a_row() -> None:
    assert rows("`quorumvault serve` |") == [str(code) for code in (0, ERROR, USAGE, STORAGE_EXIT, NOT_THERE)]
