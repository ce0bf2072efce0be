"""For tests of commands on files: a directory of its own, and the real API over sockets. Each module provides the ``rig``.

For tests of runs without the command: all tests of a module share one ``desk``, and a few rows already make several parts.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from quorumvault.cli import main
from quorumvault.testing.serving import served
from tests.rigs import tables
from tests.rigs.tables import Desk
from tests.rigs.vault import Rig, key_text


@pytest.fixture
def url(rig: Rig) -> Iterator[str]:
    with served(rig.app) as address:
        yield address


@pytest.fixture
def environment(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    return {"QUORUMVAULT_URL": url, "QUORUMVAULT_API_KEY": key_text("admin")}


@pytest.fixture
def run(environment: dict[str, str]) -> Callable[..., Result]:
    """Runs the command with these arguments, and ``stdin``, as the clinic."""

    def invoke(*arguments: str, stdin: bytes = b"") -> Result:
        return CliRunner().invoke(main, arguments, input=stdin, env=environment)

    return invoke


@pytest.fixture(scope="module")
def one_desk() -> Iterator[Desk]:
    with tables.desk() as made:
        yield made


@pytest.fixture
def desk(one_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    tables.small_parts(monkeypatch)
    one_desk.asked()
    return one_desk
