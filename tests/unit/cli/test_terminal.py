"""A terminal displays text from others and never obeys it: the text sets no title or colour and forges no line."""

import ast
import io
import json
import logging
import re
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from quorumvault.cli import health as healths
from quorumvault.cli import progress as bars
from quorumvault.cli.logs import LineFormatter
from quorumvault.cli.output import table, visible, visible_json
from quorumvault.cli.watch import watch
from quorumvault.client import Health, NodeHealth, Trouble
from quorumvault.client.results import QuorumHealth
from quorumvault.errors import Asked
from quorumvault.files.job import Done
from tests.unit.cli.test_status import health, node, run
from tests.unit.config.test_cluster import GOOD

#: Sets a title, clears the screen, sets colours in two ways, forges a line, reverses the letter order, and has markup.
HOSTILE = "x\x1b]0;OWNED\x07\x1b[2J\x9b31m\r\nforged: all is well\u2028\u202e\x7f\ud800[red]y[/red]"
SHOWN = r"x\x1b]0;OWNED\x07\x1b[2J\x9b31m\r\nforged: all is well\u2028\u202e\x7f\ud800[red]y[/red]"
#: HTTP answers are UTF-8, which has no lone surrogates.
SENT, SENT_SHOWN = HOSTILE.replace("\ud800", ""), SHOWN.replace(r"\ud800", "")


def sends_nothing(text: str) -> bool:
    return all(c in "\n\t" or unicodedata.category(c)[0] != "C" for c in text) and not {"\u2028", "\u2029"} & set(text)


def test_what_is_shown() -> None:
    assert visible(HOSTILE) == SHOWN
    assert visible("Zoë Ødegård, 李, [red]") == "Zoë Ødegård, 李, [red]"


@given(st.text(st.characters()))
def test_no_text_gets_through(text: str) -> None:
    assert visible(text).isprintable()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_says_the_same(text: str) -> None:
    line = visible_json(msgspec.json.encode({"text": text}).decode())
    assert line.isprintable()
    assert json.loads(line) == {"text": text}


def test_status_and_wait_of_a_hostile_node() -> None:
    answer = health("ok", 3, warnings=[SENT], node=SENT, state=SENT, version=SENT)
    answer["peers"] = {SENT: {"status": "up", "state": SENT}}
    with node((200, answer)) as url:
        shown = run("status", "--url", url)
        as_json = run("status", "--url", url, "--json")
    assert shown.exit_code == 0
    assert sends_nothing(shown.output)
    assert len(shown.stdout.splitlines()) == 2
    assert shown.stdout.count(SENT_SHOWN) == 6
    assert sends_nothing(as_json.output)
    assert json.loads(as_json.stdout)["nodes"][0]["health"]["warnings"] == [SENT]
    with node((503, health(SENT, 1))) as url:
        late = run("wait", "--ready", "--timeout", "0", "--url", url)
    assert (late.exit_code, sends_nothing(late.output)) == (3, True)
    assert SENT_SHOWN in late.stderr


def test_a_problem_of_a_hostile_node() -> None:
    problem = {"type": "about:blank", "title": SENT, "status": 409, "code": "epoch-ahead", "detail": SENT}
    with node((409, problem)) as url:
        refused = run("rotate", "--from", "1", "--url", url)
    assert refused.exit_code == 1
    assert sends_nothing(refused.output)
    assert refused.output.count("\n") == 1
    assert SENT_SHOWN in refused.stderr


def hostile_node() -> NodeHealth:
    return NodeHealth("http://n1", Health("ok", HOSTILE, "active", QuorumHealth(2, 3), {}, [HOSTILE], HOSTILE))


def test_watching_a_hostile_node(capsys: pytest.CaptureFixture[str]) -> None:
    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    watch(lambda: [hostile_node()], as_json=False, now=lambda: datetime(2025, 3, 1, tzinfo=UTC), sleep=stop)
    lines = capsys.readouterr().out
    assert sends_nothing(lines)
    assert lines.count("\n") == 2
    assert SHOWN in lines


def test_a_table_and_warnings_on_a_terminal() -> None:
    screen = io.StringIO()
    Console(file=screen, force_terminal=True, color_system=None, width=400).print(table(["node"], [[HOSTILE]]))
    assert SHOWN in screen.getvalue()
    assert sends_nothing(screen.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", ""))  # the table's own bold header
    assert healths.warnings([hostile_node()]) == [f"{SHOWN}: {SHOWN}"]


def test_events_and_keys(tmp_path: Path) -> None:
    config = tmp_path / "cluster.yaml"
    config.write_text(yaml.safe_dump(GOOD))
    (tmp_path / "n1").mkdir()
    event = {"ts": "2025-06-15T15:06:01.000000Z", "node": "n1", "event": "tokenize"}
    event |= dict.fromkeys(("owner", "purpose", "detail"), SENT)
    (tmp_path / "n1" / "events.jsonl").write_bytes(msgspec.json.encode(event) + b"\n")
    lines, as_json = (run("events", "--config", str(config), *more) for more in ([], ["--json"]))
    assert sends_nothing(lines.output + as_json.output)
    assert lines.output.count("\n") == 1
    assert lines.output.count(SENT_SHOWN) == 3
    assert json.loads(as_json.output) == event
    key = {"id": "a2", "owner": "clinic", "sha256": "ab" * 32, "allow": ["tokenize"], "note": SENT}
    (tmp_path / "api_keys.yaml").write_text(yaml.safe_dump({"owners": ["clinic"], "keys": [key]}))
    listed, as_json = (run("keys", "list", "--config", str(config), *more) for more in ([], ["--json"]))
    assert sends_nothing(listed.output + as_json.output)
    assert len(listed.stdout.splitlines()) == 2
    assert SENT_SHOWN in listed.stdout
    assert json.loads(as_json.stdout)["keys"][0]["note"] == SENT


def test_names_of_columns_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("\x1b[31mred.jsonl").write_text(json.dumps({"a\x1b[2J\nb": "qv_nothing"}) + "\n")
    counted = run("census", "\x1b[31mred.jsonl", "--column", "\x1b[1mno")
    assert sends_nothing(counted.output)
    assert r"\x1b[1mno" in counted.stderr
    counted = run("census", "\x1b[31mred.jsonl", "--column", "['a\\u001b[2J\\nb']")
    assert sends_nothing(counted.output)


def test_a_node_s_log(caplog: pytest.LogCaptureFixture) -> None:
    record = logging.LogRecord("x", logging.WARNING, __file__, 1, "a peer said %s", (SENT,), None)
    lines, as_json = (LineFormatter("n1", as_json=flag).format(record) for flag in (False, True))
    assert lines.isprintable()
    assert as_json.isprintable()
    assert "OWNED" in json.loads(as_json)["message"]


def test_commands_print_through_one_module() -> None:
    for path in Path(healths.__file__).parent.glob("*.py"):
        if path.name == "output.py":
            continue
        for call in (found for found in ast.walk(ast.parse(path.read_text())) if isinstance(found, ast.Call)):
            assert ast.unparse(call.func) not in ("click.echo", "click.secho", "print", "sys.stdout.write", "sys.stderr.write"), (
                path
            )


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (Trouble((), None), ""),
        (Trouble((Asked("http://n2", "no connection"),), None), "http://n2: no connection"),
        (
            Trouble(
                (Asked("http://n1", "503 no-quorum"), Asked("http://n2", "no answer in time"), Asked(HOSTILE, "503 no-quorum")),
                20.4,
            ),
            f"http://n1, {SHOWN}: 503 no-quorum; http://n2: no answer in time; goes on trying for 21 s",
        ),
    ],
)
def test_a_bar_says_who_does_not_answer_and_how_long_it_goes_on_trying(
    trouble: Trouble, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(bars, "Console", lambda **_: Console(file=screen, force_terminal=True, color_system=None, width=400))
    with bars.progress_bar(100, lambda: trouble) as progress:
        progress(Done(7, 50))
    assert "7 rows" in screen.getvalue()
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).strip() for line in screen.getvalue().replace("\r", "\n").splitlines()]
    assert words in lines
    assert words or all(line.endswith("left") for line in lines if line)
