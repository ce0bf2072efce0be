"""``status``, ``wait``, ``epoch`` and ``rotate`` against small HTTP servers that answer as nodes do."""

import contextlib
import io
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest
from click.testing import CliRunner, Result

from chaos.testbed.http_servers import Quiet, Server, serving
from quorumvault.cli import main
from quorumvault.cli.status import wait_until_ready
from quorumvault.client import Health, NodeHealth
from quorumvault.client.results import QuorumHealth
from quorumvault.errors import NoQuorum

KEY = "qvk_aaaaaaaa_" + "b" * 32


def health(status: str, reachable: int, **more: object) -> dict[str, object]:
    peers = {"n2": {"status": "up", "state": "active"}, "n3": {"status": "down"}}
    quorum = {"needed": 2, "reachable": reachable}
    return {
        "status": status,
        "node": "n1",
        "state": "active",
        "quorum": quorum,
        "peers": peers,
        "warnings": [],
        "version": "1",
    } | more


@contextlib.contextmanager
def node(*answers: tuple[int, dict[str, object]]) -> Iterator[str]:
    """A server on loopback that gives these answers in turn, and then repeats the last one; yields its URL."""
    left = list(answers)

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, answer = left.pop(0) if len(left) > 1 else left[0]
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Request-ID", self.headers["X-Request-ID"])
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 (the name that http.server calls)

    with serving(Server(Handler)) as address:
        yield f"http://{address}"


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"QUORUMVAULT_API_KEY": KEY, **environment})


def test_a_wait_of_no_number_of_seconds_is_refused(nobody: str) -> None:
    result = run("wait", "--timeout", "nan", "--url", nobody)
    assert result.exit_code == 2
    assert "'--timeout': 'nan' is not a number of seconds" in result.stderr


def test_status_of_a_node_and_of_one_that_is_away(nobody: str) -> None:
    with node((200, health("degraded", 2, warnings=["n2 has other fields"]))) as url:
        result = run("status", "--url", url, "--url", nobody)
    assert result.exit_code == 0
    heading, first, second = (line.split("\t") for line in result.stdout.splitlines())
    assert heading == ["node", "url", "status", "state", "reachable", "peers", "version", "warnings"]
    assert first == ["n1", url, "degraded", "active", "2 of 3", "n3 down", "1", "n2 has other fields"]
    assert second[:3] == ["?", nobody, "no answer"]
    assert "no connection" in second[-1]


@pytest.mark.parametrize(
    ("peers", "shown"),
    [
        ({"n2": {"status": "up", "state": "active"}, "n3": {"status": "up", "state": "active"}}, "all active"),
        ({"n2": {"status": "up", "state": "joining"}, "n3": {"status": "down", "state": "active"}}, "n2 joining, n3 down"),
        ({"n2": {"status": "up"}, "n3": {"status": "down"}}, "n2 up, n3 down"),
    ],
)
def test_peers_are_named_that_are_not_as_they_should_be(peers: dict[str, object], shown: str) -> None:
    with node((200, health("ok", 3, peers=peers))) as url:
        assert run("status", "--url", url).stdout.splitlines()[1].split("\t")[5] == shown


def test_status_without_a_quorum_exits_3_with_output() -> None:
    with node((503, health("unavailable", 1))) as url:
        result = run("status", "--json", QUORUMVAULT_URL=url)
    assert result.exit_code == 3
    answer = json.loads(result.stdout)
    assert answer["quorum"] is False
    assert answer["nodes"][0]["url"] == url
    assert answer["nodes"][0]["health"]["quorum"] == {"needed": 2, "reachable": 1}


def test_the_url_flag_goes_before_the_variable(nobody: str) -> None:
    with node((200, health("ok", 3))) as url:
        result = run("status", "--json", "--url", url, QUORUMVAULT_URL=nobody)
    assert [each["url"] for each in json.loads(result.stdout)["nodes"]] == [url]


def test_wait_goes_on_until_every_node_is_ready() -> None:
    late = ((503, health("unavailable", 1)), (200, health("ok", 3, state="draining")), (200, health("ok", 3)))
    with node((200, health("ok", 3))) as first, node(*late) as second:
        result = run("wait", "--url", first, "--url", second)
    assert result.exit_code == 0
    assert result.stdout == f"ready: {first}, {second}\n"


def test_wait_asks_again_until_its_time_is_up() -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    unready = NodeHealth("http://n1", Health("unavailable", "n1", "active", QuorumHealth(2, 1), {}))
    asked = []
    with pytest.raises(
        NoQuorum, match="not ready after 1 s: http://n1: unavailable, active, reaches 1 of the 2 active replicas it needs"
    ):
        wait_until_ready(lambda: asked.append(1) or [unready], 1.0, clock=lambda: now, sleep=sleep)
    assert len(asked) > 5


def test_one_node_is_not_taken_for_all() -> None:
    with node((200, health("ok", 3))) as first, node((200, health("ok", 3))) as second:
        one, both = run("status", "--url", first), run("status", "--url", first, "--url", second)
    assert one.stderr == f"Only {first} was asked: name every node with --url, or in QUORUMVAULT_URL.\n"
    assert both.stderr == ""


def test_epoch() -> None:
    with node((200, {"active_epoch": 4})) as url:
        assert run("epoch", "--url", url, "--json").stdout == '{"active_epoch":4}\n'
        assert run("epoch", "--url", url).stdout == "4\n"


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stdin", "code", "words"),
    [
        (io.BytesIO(b"y\n"), 2, "the active epoch is 4; to leave it behind: rotate --from 4"),
        (Terminal(b"n\n"), 1, "the active epoch is still 4"),
        (Terminal(b"y\n"), 0, "The active epoch is 4. Leave it behind, so that new tokens are of epoch 5? [y/N]"),
    ],
)
def test_rotate_asks_before_it_leaves_the_active_epoch(stdin: io.BytesIO, code: int, words: str) -> None:
    with node((200, {"active_epoch": 4}), (200, {"active_epoch": 5})) as url:
        result = CliRunner().invoke(main, ["rotate", "--url", url], env={"QUORUMVAULT_API_KEY": KEY}, input=stdin)
    assert result.exit_code == code
    assert words in result.stderr
    assert result.stdout == ("" if code else "The active epoch is 5.\n")


def test_rotate() -> None:
    with node((200, {"active_epoch": 4})) as url:
        assert run("rotate", "--from", "3", "--url", url, "--json").stdout == '{"active_epoch":4}\n'
        assert run("rotate", "--from", "3", "--url", url).stdout == "The active epoch is 4.\n"
