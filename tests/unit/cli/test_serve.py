"""What ``serve`` sets up before a node runs: its log, and what it asks of the kernel."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from quorumvault.cli import main, serve
from quorumvault.cli.dev import prepare
from quorumvault.cli.logs import LineFormatter
from quorumvault.config.cluster import NodeConfig
from quorumvault.server.node import node


def record(message: str, *arguments: object, error: Exception | None = None) -> logging.LogRecord:
    where = (type(error), error, None) if error else None
    made = logging.LogRecord("quorumvault.peers", logging.WARNING, __file__, 1, message, arguments, where)
    made.created = 1_750_000_000.25
    return made


def test_a_log_line_has_time_level_node_and_logger() -> None:
    line = LineFormatter("n1", as_json=False).format(record("%s is down", "n2"))
    assert line == "2025-06-15T15:06:40.250Z WARNING n1 quorumvault.peers: n2 is down"


def test_a_message_stays_on_its_line_and_a_traceback_is_indented() -> None:
    line = LineFormatter("n1", as_json=False).format(record("a\nb", error=OSError("no\ndisk")))
    first, *rest = line.split("\n")
    assert first.endswith("quorumvault.peers: a b")
    assert rest
    assert all(text.startswith("    ") for text in rest)


def test_log_lines_for_machines() -> None:
    formatter = LineFormatter("n1", as_json=True)
    plain = formatter.format(record("up"))
    assert json.loads(plain) == {
        "time": "2025-06-15T15:06:40.250Z",
        "level": "WARNING",
        "node": "n1",
        "logger": "quorumvault.peers",
        "message": "up",
    }
    failed = formatter.format(record("down", error=OSError("no disk")))
    assert "\n" not in failed
    assert json.loads(failed)["traceback"] == "OSError: no disk\n"


@pytest.mark.parametrize(
    ("flag", "variable", "level"), [("error", "debug", "error"), (None, "debug", "debug"), (None, None, "warning")]
)
def test_the_log_level_is_the_flag_s_then_the_variable_s_then_the_file_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str | None, variable: str | None, level: str
) -> None:
    cluster, _ = prepare(tmp_path, 9000)
    cluster.file.write_text(cluster.file.read_text().replace("# log_level: info", "log_level: warning"))
    served = []
    levels = []

    async def serve_node(config: NodeConfig) -> int:
        served.append(config.node)
        return 3

    monkeypatch.setattr(node, "serve", serve_node)
    monkeypatch.setattr(serve, "log_to_stderr", lambda node, level, as_json: levels.append(level))
    arguments = ["serve", "--config", str(cluster.file), "--node", "n2", *(["--log-level", flag] if flag else [])]
    result = CliRunner().invoke(main, arguments, env={"QUORUMVAULT_LOG_LEVEL": variable})
    assert (result.exit_code, served, levels) == (3, ["n2"], [level])


def test_no_core_dumps() -> None:
    program = (
        "import ctypes, resource; from quorumvault.config.process_memory import forbid_core_dumps; forbid_core_dumps();"
        "print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # 3: PR_GET_DUMPABLE
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "(0, 0) 0\n"


def test_a_node_whose_starter_is_gone_does_not_start() -> None:
    program = "from quorumvault.cli.process import stop_with; stop_with(1 << 30)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "process 1073741824, which started this node, has ended" in done.stderr
