"""docs/python.md: its examples run in their order, in one module, and print what the page says."""

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quorumvault.testing.serving import served
from tests import ROOT
from tests.rigs.vault import Rig, key_text

PAGE = (ROOT / "docs" / "python.md").read_text()
#: Each example, its line in the page, and what it prints.
EXAMPLES = [
    (match[1], PAGE.count("\n", 0, match.start()) + 2, match[2] or "")
    for match in re.finditer(r"```python\n(.*?)```\n(?:```text\n(.*?)```)?", PAGE, re.DOTALL)
]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The variables of a new module. The environment names a vault and a key that may do everything.

    The page's map of clusters exists, and leads to this vault.
    """
    monkeypatch.chdir(tmp_path)
    with served(Rig(fields=("$.ssn",)).app) as url:
        (clusters,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
        (tmp_path / "clusters.toml").write_text(re.sub("urls = .*", f'urls = ["{url}"]', clusters))
        (tmp_path / "keys").mkdir()
        (tmp_path / "keys" / "clinic-a").write_text(key_text("admin"))
        monkeypatch.setenv("QUORUMVAULT_URL", url)
        monkeypatch.setenv("QUORUMVAULT_API_KEY", key_text("admin"))
        made: dict[str, Any] = {"__name__": "example"}
        yield made
        for opened in ("vault", "con"):
            if opened in made:
                made[opened].close()


def test_the_examples_print_what_the_page_says(names: dict[str, Any]) -> None:
    assert PAGE.count("```python") == len(EXAMPLES) > 15
    for code, line, expected in EXAMPLES:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * (line - 1) + code, "docs/python.md", "exec"), names)
        pattern = re.escape(expected).replace("…", "[0-9a-z]{40,}")
        assert re.fullmatch(pattern, printed.getvalue()), f"docs/python.md, line {line}: printed {printed.getvalue()}"
