"""Text that begins like a token but is none passes through unchanged, and is reported."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from quorumvault.cli import main
from quorumvault.crypto.tokens import format_token
from quorumvault.errors import QuorumVaultError
from tests.rigs import tables
from tests.rigs.tables import Desk
from tests.rigs.vault import key_text

pytestmark = pytest.mark.slow

TOKEN = format_token(1, bytes(20))
MISTYPED = TOKEN[:-1] + ("2" if TOKEN.endswith("1") else "1")


@pytest.mark.parametrize("operation", ["detokenize", "retokenize"])
@pytest.mark.parametrize("form", tables.FORMATS)
def test_it_stays_and_is_told(form: str, operation: Any, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given, made = Path(f"in.{form}"), Path(f"out.{form}")
    tables.write(given, [(text, "x") for text in (TOKEN[:-1], TOKEN.upper(), MISTYPED, "qv_", "plain")])
    asked = tables.job(given, made, operation)
    done = desk.run(asked)
    assert (done.damaged, done.no_token, done.partial) == ({"name": 3}, 5, False)
    assert tables.read(made) == tables.read(given)
    desk.refused(QuorumVaultError, "name: the text begins like a token and is none", asked, missing="error", force=True)
    table = "::t" if form == "duckdb" else ""
    command = [operation, f"{given}{table}", "--column", "name", "-o", f"{made}{table}", "--force", "--url", desk.url]
    told = CliRunner().invoke(main, command, env={"QUORUMVAULT_API_KEY": key_text("admin")})
    assert told.exit_code == 0, told.stderr
    assert "warning: name has 3 cells that begin like tokens and are none: mistyped, cut or changed" in told.stderr
