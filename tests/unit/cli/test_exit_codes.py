"""Exit codes, one by one: 0 ok, 1 error, 2 usage, 3 no quorum, 4 partial; and the message that comes with each.

tests/cluster/test_operating.py tests the exit codes of ``serve``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from click.testing import CliRunner

from quorumvault.cli import main
from quorumvault.errors import NoQuorum
from quorumvault.server.http.health import QuorumHealth
from quorumvault.testing.fake import HEALTHY
from quorumvault.testing.serving import served
from tests.rigs.served import no_waiting
from tests.rigs.vault import Rig, key_text

pytestmark = pytest.mark.slow

#: Stands for a URL at which nobody listens.
NOBODY = "NOBODY"
TABLE = ("ssn.csv", "--column", "ssn", "--format", "csv")


class Case(NamedTuple):
    """``says`` is part of standard error, or is the whole first line of standard output."""

    code: int
    arguments: tuple[str, ...]
    says: str
    change: Callable[[Rig], None] | None = None
    environment: dict[str, str] = {}  # noqa: RUF012 - read only


def lose_quorum(rig: Rig) -> None:
    rig.vault.failure = NoQuorum("n2: down; n3: down", outcome="none")
    rig.health = msgspec.structs.replace(HEALTHY, status="unavailable", quorum=QuorumHealth(reachable=1))


AS_LAB = {"QUORUMVAULT_API_KEY": key_text("lab")}
CONFIG = ("--config", "vault/cluster.yaml")
CASES = [
    Case(0, ("tokenize", *TABLE), "1 rows; values that became tokens: ssn 1"),
    Case(0, ("detokenize", "tokens.csv", "--column", "ssn"), "1 rows; values that came back: ssn 1"),
    Case(0, ("rotate", "--from", "1"), "The active epoch is 2."),
    Case(0, ("status",), "node\turl"),
    Case(0, ("wait",), "ready: "),
    Case(0, ("keys", "list", *CONFIG), "id\towner"),
    Case(0, ("init", "new"), "A cluster is in "),
    Case(0, ("completion", "fish"), ""),
    Case(0, ("--version",), "quorumvault "),
    Case(1, ("tokenize", "tokens.csv", "--column", "ssn"), "tokens.csv: line 2: ssn: there is a token already; --if-token keep"),
    Case(1, ("rotate", "--from", "7"), "the active epoch is 1: rotate from that one"),
    Case(1, ("rotate", "--from", "1"), "may detokenize, tokenize, not rotate", environment=AS_LAB),
    Case(1, ("rotate", "--from", "1"), "--key-file, else of QUORUMVAULT_API_KEY", environment={"QUORUMVAULT_API_KEY": "qvk_x"}),
    Case(1, ("rotate", "--from", "1", "--key-file", "none"), "none: the API key cannot be read: No such file"),
    Case(1, ("status",), "QUORUMVAULT_URL: expected http://HOST:PORT", environment={"QUORUMVAULT_URL": "ftp://127.0.0.1"}),
    *(
        Case(1, ("status",), "QUORUMVAULT_URL: expected http://HOST:PORT", environment={"QUORUMVAULT_URL": f"http://{host}:8700"})
        for host in ("10.0.0.400", "n1..example", "n" * 64, "gr\udcf6sse")
    ),
    Case(1, ("keys", "list"), "cluster.yaml: there is no such file; name the cluster's with --config"),
    Case(1, ("keys", "create", *CONFIG, "--owner", "nobody"), "no owner 'nobody' among default; if it is to be a new one, say"),
    Case(1, ("keys", "revoke", *CONFIG, "no-such-id"), "no key has this id; `quorumvault keys list` shows the ids"),
    Case(1, ("init", "vault"), "there is a cluster here already (cluster.yaml); nothing was changed"),
    Case(1, ("events", *CONFIG), "no node has an event log here"),
    Case(1, ("serve", "--config", "ssn.csv", "--node", "n1"), "ssn.csv: expected a mapping of names to values"),
    Case(2, ("tokenise",), "There is no command 'tokenise'; did you mean tokenize?"),
    Case(2, ("status", "--wach"), "No such option '--wach'. Did you mean '--watch'?"),
    Case(2, ("status", "--url", "ftp://127.0.0.1"), "--url: expected http://HOST:PORT"),
    Case(2, ("status", "--purpose", "two words"), "--purpose: expected 1 to 128 visible ASCII characters, no spaces"),
    Case(2, ("rotate",), "the active epoch is 1; to leave it behind: rotate --from 1"),
    Case(2, ("serve",), "Missing option '--node'"),
    Case(2, ("keys", "create"), "Missing option '--owner'"),
    Case(2, ("--no-such",), "No such option '--no-such'"),
    Case(2, ("tokenize", "no-such.csv"), "no-such.csv: there is no such file or folder"),
    Case(2, ("tokenize", "ssn.csv", "--column", "name"), "ssn.csv has no column 'name'; its columns: 'ssn'"),
    Case(2, ("tokenize",), "say which format it is: --format csv or --format jsonl"),
    Case(2, ("tokenize", *TABLE, "-o", "tokens.csv"), "tokens.csv exists: name another file, or give --force to replace it"),
    Case(2, ("completion", "tcsh"), "Invalid value for 'SHELL'"),
    Case(2, ("init", "other", "--host", "a,b"), "expected one host for all nodes, or 3 different ones"),
    Case(3, ("tokenize", *TABLE), "n2: down; n3: down", lose_quorum),
    Case(3, ("detokenize", "tokens.csv", "--column", "ssn"), "n2: down; n3: down", lose_quorum),
    Case(3, ("rotate", "--from", "1"), "n2: down; n3: down", lose_quorum),
    Case(3, ("rotate", "--from", "1", "--url", NOBODY), "no node answered: do they run, and are these their URLs?"),
    Case(3, ("status",), "node\turl", lose_quorum),
    Case(3, ("status", "--url", NOBODY), "node\turl"),
    Case(
        3, ("wait", "--ready", "--timeout", "0"), "unavailable, active, reaches 1 of the 2 active replicas it needs", lose_quorum
    ),
    Case(3, ("wait", "--ready", "--timeout", "0", "--url", NOBODY), "not ready after 0 s: http://127.0.0.1:"),
    Case(4, ("detokenize", "tokens.csv", "--column", "ssn"), "1 tokens not found", environment=AS_LAB),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.code} {' '.join(case.arguments)}")
def test_exit_code(case: Case, nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(fields=("$.ssn",))
    monkeypatch.chdir(tmp_path)
    no_waiting(monkeypatch)
    CliRunner().invoke(main, ["init", "vault"])
    Path("ssn.csv").write_text("ssn\n123-45-6789\n")
    Path("tokens.csv").write_text(f"ssn\n{rig.tokens(['123-45-6789'])[0]}\n")
    if case.change is not None:
        case.change(rig)
    with served(rig.app) as url:
        environment = {"QUORUMVAULT_URL": url, "QUORUMVAULT_API_KEY": key_text("admin"), **case.environment}
        arguments = [nobody if argument == NOBODY else argument for argument in case.arguments]
        result = CliRunner().invoke(main, arguments, env=environment)
    assert result.exit_code == case.code, result.output
    assert case.says in result.stderr + result.stdout.partition("\n")[0]
    assert "Traceback" not in result.output
    if case.code in (1, 2):
        assert result.stdout == ""
        assert result.stderr.startswith("quorumvault: ")
