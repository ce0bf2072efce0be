"""The administrative socket: who can reach it, what it answers, and how the command line reports that."""

import asyncio
import json
import os
import socket
import stat
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import msgspec
import pytest
from click.testing import CliRunner, Result

from quorumvault.cli import main
from quorumvault.cli.admin_client import AdminClient
from quorumvault.cli.dev import prepare
from quorumvault.config.api_keys import load_keys
from quorumvault.config.limits import Limits, Timeouts
from quorumvault.errors import ConfigError, Invalid, NoQuorum, NotRunning
from quorumvault.server.backup.format import AnyMessage, BrokenOff, Counts, Header, Piece, Trailer, Writer
from quorumvault.server.http.admin import schemas
from quorumvault.server.http.admin.routes import Controls, create_admin_app
from quorumvault.server.http.admin.schemas import FactsStatus, PeerDifferences, PeerRepair, Repaired, Verified, ViewStatus
from quorumvault.server.http.admin.socket import FILE_NAME, listen, short_path
from quorumvault.server.http.health import Health, PeerHealth, QuorumHealth
from quorumvault.server.http.server import HttpServer

ResultT = TypeVar("ResultT")

DISKS = {"n1": "aa" * 16, "n2": "bb" * 16, "n3": "cc" * 16}
HEALTH = Health("degraded", "n1", "active", QuorumHealth(2), {"n2": PeerHealth("up")}, ["n2 has other API keys"], "1.2.3")
MINE = FactsStatus("1.2.3", DISKS["n1"], 7, "active", True, ViewStatus(1, None, DISKS), {"s1": "f1"}, "fields-1", "keys-1")
THEIRS = FactsStatus("1.2.4", DISKS["n2"], 3, "active", True, None, {"s1": "f1"}, "fields-1", "keys-2")
STATUS = schemas.NodeStatus(
    node="n1",
    pid=4711,
    api="127.0.0.1:8700",
    peer="127.0.0.1:8710",
    data="/srv/vault/n1",
    facts=MINE,
    sequence=99,
    health=HEALTH,
    peers={
        "n2": schemas.PeerStatus("127.0.0.1:8711", True, None, True, THEIRS),
        "n3": schemas.PeerStatus("127.0.0.1:8712", False, "cannot connect", False, None),
    },
    in_flight=2,
    limits=Limits(),
    timeouts=Timeouts(),
)
REPAIRED = Repaired("n1", {"n2": PeerRepair(3, 1200, 7, 1), "n3": PeerRepair()})
VERIFIED = Verified("n1", {"n2": PeerDifferences(1_000_000), "n3": PeerDifferences(1_000_000)})


def answers(what: ResultT) -> Callable[[], Awaitable[ResultT]]:
    async def answer() -> ResultT:
        return what

    return answer


async def no_backup() -> AsyncGenerator[bytes, None]:
    raise NoQuorum("n2 is down; n3 is down")
    yield b""


def replace_given_up(accept_loss: bool) -> Repaired:
    return msgspec.structs.replace(REPAIRED, given_up=7) if accept_loss else REPAIRED


CONTROLS = Controls(
    status=lambda: STATUS,
    reload=lambda: schemas.Reloaded(["API keys"], {}),
    stop=lambda: None,
    repair=lambda accept_loss: answers(replace_given_up(accept_loss))(),
    verify=answers(VERIFIED),
    backup=no_backup,
    revoke=lambda key_id: answers(schemas.RevokedKey(key_id, "n1"))(),
    revoked=lambda: schemas.RevokedKeys("n1", ["3fq7tzd2"], True),
)


def serving(directory: Path, ask: Callable[[], ResultT], **controls: Any) -> ResultT:
    """Run ``ask`` on another thread while a node answers at the socket in ``directory``. Return its result."""

    async def serve() -> ResultT:
        app = create_admin_app(replace(CONTROLS, **controls), lambda: "r-1")
        server = HttpServer(app, listen(directory), Limits(), Timeouts())
        server.start()
        try:
            return await asyncio.to_thread(ask)
        finally:
            await server.stop()

    return asyncio.run(serve())


def command(directory: Path, name: str, *more: str, **controls: Any) -> Result:
    """The result of the command in a new cluster in ``directory``, while its n1 answers."""
    cluster, _ = prepare(directory, 9000)
    where = ["--config", str(cluster.file)] if name.startswith("admin ") else [str(directory)]
    full = [*name.split(), *where, "--node", "n1", *more]
    return serving(directory / "n1", lambda: CliRunner().invoke(main, full), **controls)


def test_what_the_node_says_arrives(tmp_path: Path) -> None:
    stops: list[int] = []
    client = AdminClient(tmp_path)
    assert serving(tmp_path, client.status) == STATUS
    refused = schemas.Reloaded([], {"API keys": "no such file"})
    assert serving(tmp_path, client.reload, reload=lambda: refused) == refused
    assert (serving(tmp_path, client.stop, stop=lambda: stops.append(1)), stops) == (schemas.Stopping(), [1])
    assert (serving(tmp_path, client.repair), serving(tmp_path, client.verify)) == (REPAIRED, VERIFIED)
    assert serving(tmp_path, lambda: client.repair(accept_loss=True)) == replace_given_up(accept_loss=True)


def test_the_socket_is_its_owner_s_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        listen(tmp_path).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600


def test_a_directory_too_deep_for_the_address_of_a_socket_will_do(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as plain, pytest.raises(OSError, match="too long"):
        plain.bind(str(deep / FILE_NAME))
    assert serving(deep, AdminClient(deep).status) == STATUS


def test_a_socket_that_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    listen(tmp_path).close()
    assert (tmp_path / FILE_NAME).exists()
    with pytest.raises(NotRunning, match=r"admin\.sock.*does the node run"):
        AdminClient(tmp_path).status()
    assert serving(tmp_path, AdminClient(tmp_path).status) == STATUS


def test_no_socket_where_something_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(ConfigError, match=r"admin\.sock: expected to make a socket here"):
        listen(tmp_path)


def test_other_paths_and_methods_are_refused_as_the_api_refuses_them(tmp_path: Path) -> None:
    def ask() -> list[tuple[int, str]]:
        with (
            short_path(tmp_path) as uds,
            httpx2.Client(transport=httpx2.HTTPTransport(uds=uds), base_url="http://node") as client,
        ):
            answers = [client.get("/stop"), client.get("/status/"), client.post("/tokenize")]
        return [(answer.status_code, answer.json()["code"]) for answer in answers]

    assert serving(tmp_path, ask) == [(405, "method-not-allowed"), (404, "not-found"), (404, "not-found")]


HEADER = Header("c1", 1, "s1", "f1", "2026-01-01T00:00:00.000+00:00", "1.0")
TRAILER = Trailer(Counts(1, 0, 0, 0), ["n1", "n3"], bytes(32))


def giving(*messages: AnyMessage) -> Callable[[], AsyncGenerator[bytes, None]]:
    """A backup made of these messages."""

    async def chunks() -> AsyncGenerator[bytes, None]:
        writer = Writer()
        for message in messages:
            yield writer.write(message)

    return chunks


PIECES = [Piece([b"key %d" % number], [bytes(100_000)]) for number in range(50)]


def test_a_backup_arrives_as_it_is(tmp_path: Path) -> None:
    def ask() -> tuple[Header, list[Piece], Trailer]:
        with AdminClient(tmp_path).backup() as reader:
            pieces = []
            while isinstance((frame := reader.next()).message, Piece):
                pieces.append(frame.message)
            return reader.header, pieces, frame.message

    assert serving(tmp_path, ask, backup=giving(HEADER, *PIECES, TRAILER)) == (HEADER, PIECES, TRAILER)


def test_a_taker_that_leaves_ends_the_backup(tmp_path: Path) -> None:
    ended = threading.Event()
    given = 0

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal given
        writer = Writer()
        try:
            yield writer.write(HEADER)
            while True:
                given += 1
                yield writer.write(PIECES[0])
                await asyncio.sleep(0)  # yields, as a backup does when it rests
        finally:
            ended.set()

    def ask() -> None:
        with AdminClient(tmp_path).backup() as reader:
            reader.next()
        assert ended.wait(20)

    serving(tmp_path, ask, backup=endless)
    assert given < 1000  # pieces that nobody takes are not made


# The command line.


def backing_up(directory: Path, backup: Callable[[], AsyncGenerator[bytes, None]], *more: str) -> Result:
    return command(directory, "backup", "-o", str(directory / "b.qvb"), *more, backup=backup)


def test_a_backup_is_the_bytes_that_the_node_gives_and_says_what_to_keep(tmp_path: Path) -> None:
    result = backing_up(tmp_path, giving(HEADER, *PIECES, TRAILER))
    assert result.exit_code == 0, result.output
    file = tmp_path / "b.qvb"
    writer = Writer()
    assert file.read_bytes() == b"".join([*map(writer.write, [HEADER]), *map(writer.write, PIECES), writer.write(TRAILER)])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "has what n1 and n3 had together: 1 records" in result.output
    for kept in ("secrets/master-s1.key", "fields.yaml", "api_keys.yaml"):
        assert f"  {tmp_path / kept}   " in result.output
    again = backing_up(tmp_path, giving(HEADER, TRAILER), "--force", "--json")
    answer = json.loads(again.stdout)
    assert (answer["bytes"], answer["secret"]) == (file.stat().st_size, {"id": "s1", "fingerprint": "f1"})
    assert answer["keep"]["master_secret"] == str(tmp_path / "secrets/master-s1.key")


@pytest.mark.parametrize(
    ("messages", "code", "words"),
    [
        ([], 3, "n2 is down; n3 is down"),
        ([HEADER, PIECES[0], BrokenOff("no-quorum", "n2 is gone")], 3, "n2 is gone"),
        ([HEADER, PIECES[0], BrokenOff("refused", "a record")], 1, "a record"),
        ([HEADER, PIECES[0]], 1, "it was cut short"),
    ],
    ids=["not begun", "no quorum", "refused", "cut short"],
)
def test_a_backup_that_is_not_whole_is_no_file(tmp_path: Path, messages: list[AnyMessage], code: int, words: str) -> None:
    before = set(prepare(tmp_path, 9000)[0].file.parent.iterdir())
    result = backing_up(tmp_path, giving(*messages) if messages else no_backup)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (code, "", 1)
    assert words in result.stderr
    assert set(tmp_path.iterdir()) == before


def test_a_node_that_fails_in_the_middle_leaves_no_file(tmp_path: Path) -> None:
    async def failing() -> AsyncGenerator[bytes, None]:
        yield Writer().write(HEADER)
        raise RuntimeError("a slip")

    result = backing_up(tmp_path, failing)
    assert result.exit_code == 1
    assert "the answer ends in the middle" in result.stderr
    assert not (tmp_path / "b.qvb").exists()


def test_status_for_people(tmp_path: Path) -> None:
    result = command(tmp_path, "admin status")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "process\t4711, version 1.2.3, 2 of 64 requests under way" in lines
    assert "status\tdegraded, active, reaches 2 nodes" in lines
    assert f"disk\t{DISKS['n1']}, start 7, write 99" in lines
    assert "view\t1: n1 aaaaaaaa, n2 bbbbbbbb, n3 cccccccc" in lines
    assert "n2\t127.0.0.1:8711\tup\tup\t1.2.4\tactive\tbbbbbbbb\t-\tsame\tsame\tOTHER\t" in lines
    assert "n3\t127.0.0.1:8712\tdown\tdown\t-\t-\t-\t-\t-\t-\t-\tcannot connect" in lines
    assert lines[-1] == "n2 has other API keys"


def test_answers_for_machines(tmp_path: Path) -> None:
    answer = json.loads(command(tmp_path, "admin status", "--json").output)
    assert (answer["node"], answer["sequence"], answer["facts"]["view"]["disks"]) == ("n1", 99, DISKS)
    assert json.loads(command(tmp_path / "other", "verify", "--json").output)["peers"]["n2"] == {"records": 1_000_000}


def test_a_reload_that_is_refused_in_part_says_what_stays_and_fails(tmp_path: Path) -> None:
    reloaded = schemas.Reloaded(["peer addresses"], {"API keys": "api_keys.yaml: is missing"})
    result = command(tmp_path, "admin reload", reload=lambda: reloaded)
    assert (result.exit_code, result.stdout) == (1, "n1 has read its peer addresses again.\n")
    assert result.stderr == "The API keys stay as they were: api_keys.yaml: is missing\n"


def test_a_node_that_does_not_run_or_does_not_exist(tmp_path: Path) -> None:
    cluster, _ = prepare(tmp_path, 9000)
    asked = ["admin", "status", "--config", str(cluster.file)]
    missing = CliRunner().invoke(main, [*asked, "--node", "n2"])
    assert missing.exit_code == 1
    assert "n2/admin.sock" in missing.stderr
    assert "does the node run, on this host, and as this user?" in missing.stderr
    unknown = CliRunner().invoke(main, [*asked, "--node", "n4"])
    assert unknown.exit_code == 1
    assert "no node 'n4' in this cluster; expected one of n1, n2, n3" in unknown.stderr


def verified(found: PeerDifferences) -> dict[str, Any]:
    return {"verify": answers(Verified("n1", {"n2": found, "n3": PeerDifferences(10)}))}


def repaired(found: PeerRepair) -> dict[str, Any]:
    return {"repair": lambda accept_loss: answers(Repaired("n1", {"n2": found, "n3": PeerRepair()}))()}


NONE_TAKEN, SAME = "0 records taken, 0 given, 0 epochs raised", "10 records, identical"
ALL_DIFFER = "10 records: 1 only on n1, 2 only on n2, 3 not the same, 4 epochs not the same, 5 buckets that cannot be read"
#: The command, overrides of the node's answers, the exit code, and the words about n2 and n3, or the whole output.
TOLD: list[tuple[str, dict[str, Any], int, list[str]]] = [
    ("admin stop", {}, 0, ["n1 drains, and ends when that is done."]),
    ("repair", {}, 0, ["1,200 records taken, 7 given, 1 epochs raised", NONE_TAKEN]),
    ("repair", repaired(PeerRepair(problem="n2 does not answer")), 1, ["not compared: n2 does not answer", NONE_TAKEN]),
    ("repair", repaired(PeerRepair(2, 0, 5, 0, 2)), 1,
     ["0 records taken, 5 given, 0 epochs raised, 2 buckets cannot be read", NONE_TAKEN]),
    ("verify", {}, 0, ["1,000,000 records, identical"] * 2),
    ("verify", verified(PeerDifferences(10, 1, 2, 3, 4, 5)), 1, [ALL_DIFFER, SAME]),
    ("verify", verified(PeerDifferences(10, registers=1)), 1, ["10 records: 1 epochs not the same", SAME]),
    ("verify", verified(PeerDifferences(problem="n2 does not vote")), 1, ["not compared: n2 does not vote", SAME]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "controls", "code", "said"), TOLD)
def test_what_is_said_and_whether_that_fails(
    tmp_path: Path, name: str, controls: dict[str, Any], code: int, said: list[str]
) -> None:
    result = command(tmp_path, name, **controls)
    lines = [f"n1 and {peer}: {words}" for peer, words in zip(("n2", "n3"), said, strict=True)] if len(said) > 1 else said
    assert (result.exit_code, result.output.splitlines()) == (code, lines)


def revoking(directory: Path, *arguments: str, **controls: Any) -> Result:
    """The result of ``keys`` in a new cluster in ``directory``, while its n1 answers."""
    cluster, _ = prepare(directory, 9000)
    name, *more = arguments
    full = ["keys", name, "--config", str(cluster.file), *more]
    return serving(directory / "n1", lambda: CliRunner().invoke(main, full), **controls)


def first_key(directory: Path) -> str:
    cluster, _ = prepare(directory, 9000)
    return next(iter(load_keys(cluster.api_keys).by_id()))


def test_a_key_is_revoked_in_the_file_and_by_a_node(tmp_path: Path) -> None:
    key_id, asked = first_key(tmp_path), list[str]()

    async def revoke(given: str) -> schemas.RevokedKey:
        asked.append(given)
        return schemas.RevokedKey(given, "n1")

    result = revoking(tmp_path, "revoke", key_id, revoke=revoke)
    assert (result.exit_code, asked) == (0, [key_id])
    assert result.stdout == f"Key {key_id} of dev is revoked: n1 has seen to it that two disks have noted it.\n"
    again = json.loads(revoking(tmp_path, "revoke", key_id, "--json", revoke=revoke).stdout)
    assert (again["id"], again["owner"], again["node"], asked) == (key_id, "dev", "n1", [key_id, key_id])


def test_a_key_of_another_host_s_file_is_revoked_if_that_is_no_slip(tmp_path: Path) -> None:
    result = revoking(tmp_path, "revoke", "3fq7tzd2")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no key has this id" in result.stderr
    answer = json.loads(revoking(tmp_path, "revoke", "3fq7tzd2", "--elsewhere", "--json").stdout)
    assert answer == {"id": "3fq7tzd2", "owner": None, "revoked": None, "node": "n1"}


@pytest.mark.parametrize(("error", "code"), [(NoQuorum("n2 is down", outcome="unknown"), 3), (Invalid("no id"), 1)])
def test_a_revocation_that_may_not_hold_is_no_success(tmp_path: Path, error: Exception, code: int) -> None:
    async def revoke(given: str) -> schemas.RevokedKey:
        raise error

    result = revoking(tmp_path, "revoke", first_key(tmp_path), revoke=revoke)
    assert (result.exit_code, result.stdout) == (code, "")
    assert str(error) in result.stderr


def test_a_list_has_what_is_revoked_in_the_cluster_alone(tmp_path: Path) -> None:
    key_id = first_key(tmp_path)
    revoked = schemas.RevokedKeys("n1", [key_id], current=True)
    (entry,) = json.loads(revoking(tmp_path, "list", "--json", revoked=lambda: revoked).stdout)["keys"]
    assert (entry["id"], entry["revoked"], entry["revoked_in_cluster"]) == (key_id, None, True)
    assert "\tin the cluster\t" in revoking(tmp_path, "list", revoked=lambda: revoked).stdout
