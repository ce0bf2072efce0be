"""``keys revoke`` and ``keys rotate`` when this host's key file and its nodes disagree, or a node cannot be asked."""

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from unittest import mock

import pytest
from click.testing import CliRunner, Result

from quorumvault import durable
from quorumvault.cli import main
from quorumvault.cli.dev import prepare
from quorumvault.config import key_changes
from quorumvault.config.api_keys import read_keyfile
from quorumvault.errors import Invalid, NoQuorum, NotFound
from quorumvault.server.http.admin.schemas import RevokedKey, RevokedKeys, Stopping
from tests.unit.server.http.test_admin import answers, first_key, revoking, serving

Trouble = Callable[[Path], AbstractContextManager[None]]


class Asked:
    """Stands in for a node: records the ids that it is asked to revoke, then revokes them or raises ``error``."""

    def __init__(self, error: Exception | None = None) -> None:
        self.ids: list[str] = []
        self._error = error

    async def revoke(self, key_id: str) -> RevokedKey:
        self.ids.append(key_id)
        if self._error is not None:
            raise self._error
        return RevokedKey(key_id, "n1")


def marked(directory: Path) -> list[str]:
    """The ids of the keys that the key file marks as revoked."""
    return [entry.id for entry in read_keyfile(directory / "api_keys.yaml").keys if entry.revoked is not None]


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a lock on the directory, as anybody who may read it can."""
    holder = os.open(directory, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_SH)
    try:
        with mock.patch.object(key_changes, "_LOCK_SECONDS", 0.0):
            yield
    finally:
        os.close(holder)


@contextmanager
def unwritable(directory: Path) -> Iterator[None]:
    refused = OSError(errno.EROFS, os.strerror(errno.EROFS), str(directory / ".api_keys.yaml.new"))
    with mock.patch.object(durable, "replacing", side_effect=refused):
        yield


TROUBLES = [(locked, "has its directory locked"), (unwritable, "api_keys.yaml: Read-only file system")]


@pytest.mark.parametrize(("trouble", "why"), TROUBLES)
def test_a_key_is_revoked_though_the_file_cannot_be_marked(tmp_path: Path, trouble: Trouble, why: str) -> None:
    key_id, node = first_key(tmp_path), Asked()
    with trouble(tmp_path):
        result = revoking(tmp_path, "revoke", key_id, revoke=node.revoke)
        for_machines = revoking(tmp_path, "revoke", key_id, "--json", revoke=node.revoke)
        left_alone = revoking(tmp_path, "revoke", key_id, "--elsewhere", revoke=node.revoke)
    assert (result.exit_code, for_machines.exit_code, left_alone.exit_code) == (4, 4, 0)
    assert node.ids == [key_id] * 3
    assert "n1 has seen to it" in result.stdout
    assert "revoked in the cluster; the key file could not be marked: " in result.stderr
    assert why in result.stderr
    assert (json.loads(for_machines.stdout)["node"], json.loads(for_machines.stdout)["revoked"]) == ("n1", None)
    assert marked(tmp_path) == []
    assert revoking(tmp_path, "revoke", key_id, revoke=node.revoke).exit_code == 0
    assert marked(tmp_path) == [key_id]


def test_a_file_that_cannot_be_read_names_the_way_round_it(tmp_path: Path) -> None:
    key_id, node = first_key(tmp_path), Asked()
    file = tmp_path / "api_keys.yaml"
    file.write_text(file.read_text() + "  - id: zzzz\n")
    broken = file.read_bytes()
    result = revoking(tmp_path, "revoke", key_id, revoke=node.revoke)
    assert (result.exit_code, node.ids) == (1, [])
    assert f"{file}: " in result.stderr
    assert "nothing was done. If the id is right say `--elsewhere`" in result.stderr
    result = revoking(tmp_path, "revoke", key_id, "--elsewhere", revoke=node.revoke)
    assert (result.exit_code, node.ids, file.read_bytes()) == (0, [key_id], broken)


@pytest.mark.parametrize("trouble", [locked, unwritable])
def test_what_neither_the_cluster_nor_the_file_has_noted_is_said(tmp_path: Path, trouble: Trouble) -> None:
    key_id, node = first_key(tmp_path), Asked(NoQuorum("n2 is down", outcome="unknown"))
    with trouble(tmp_path):
        result = revoking(tmp_path, "revoke", key_id, revoke=node.revoke)
    assert (result.exit_code, marked(tmp_path)) == (3, [])
    assert "not known to be revoked in the cluster yet" in result.stderr
    assert "The key file could not be marked either: " in result.stderr
    result = revoking(tmp_path, "revoke", key_id, revoke=node.revoke)
    assert (result.exit_code, marked(tmp_path)) == (3, [key_id])
    assert "The key file says it" in result.stderr


def test_a_lock_that_another_process_lets_go_of_is_waited_for(tmp_path: Path) -> None:
    key_id, node = first_key(tmp_path), Asked()
    holder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with mock.patch("time.sleep", side_effect=lambda seconds: os.close(holder)) as pause:
        assert revoking(tmp_path, "revoke", key_id, revoke=node.revoke).exit_code == 0
    assert (pause.call_count, marked(tmp_path)) == (1, [key_id])


def test_whoever_holds_the_lock_is_named_as_far_as_the_kernel_says(tmp_path: Path) -> None:
    key_id, status = first_key(tmp_path), tmp_path.stat()
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    lines = [f"1: FLOCK  ADVISORY  READ 4711 {inode} 0 EOF", f"1: -> FLOCK  ADVISORY  WRITE 4712 {inode} 0 EOF"]
    lines += [f"2: POSIX  ADVISORY  WRITE 4713 {inode} 0 EOF", "3: FLOCK  ADVISORY  WRITE 4714 00:01:1 0 EOF"]
    for text, who in (("\n".join(lines), "process 4711 has its directory"), ("", "another process has its directory")):
        with locked(tmp_path), mock.patch.object(key_changes, "_LOCKS", tmp_path / "locks"):
            (tmp_path / "locks").write_text(text)
            assert who in revoking(tmp_path, "revoke", key_id).stderr


@pytest.mark.parametrize("error", [NotFound("no such path"), Invalid("10,000 keys are revoked"), NoQuorum("n2 is down")])
def test_the_next_node_here_is_asked_if_one_cannot_do_it(tmp_path: Path, error: Exception) -> None:
    key_id, first, second = first_key(tmp_path), Asked(error), Asked()
    result = serving(tmp_path / "n2", lambda: revoking(tmp_path, "revoke", key_id, revoke=first.revoke), revoke=second.revoke)
    assert (result.exit_code, first.ids, second.ids) == (0, [key_id], [key_id])
    alone = revoking(tmp_path, "revoke", key_id, revoke=first.revoke)
    assert alone.exit_code == (3 if isinstance(error, NoQuorum) else 1)
    assert str(error) in alone.stderr
    assert f"key {key_id} is not known to be revoked in the cluster yet" in alone.stderr
    assert "Say it again" in alone.stderr


def test_an_answer_that_is_none_is_as_good_as_a_refusal(tmp_path: Path) -> None:
    key_id, second = first_key(tmp_path), Asked()
    another = {"revoke": lambda key_id: answers(Stopping())(), "revoked": Stopping}
    result = serving(tmp_path / "n2", lambda: revoking(tmp_path, "revoke", key_id, **another), revoke=second.revoke)
    assert (result.exit_code, second.ids) == (0, [key_id])
    alone = revoking(tmp_path, "revoke", key_id, **another)
    assert alone.exit_code == 1
    assert "not known to be revoked in the cluster yet" in alone.stderr
    (entry,) = json.loads(revoking(tmp_path, "list", "--json", **another).stdout)["keys"]
    assert entry["revoked_in_cluster"] is None


def test_a_whole_key_in_the_place_of_its_id_is_not_shown(tmp_path: Path) -> None:
    _, text = prepare(tmp_path, 9000)
    for code, *more in ((1, "revoke", text), (2, "revoke", text, "--elsewhere"), (1, "rotate", text, "--grace", "1h")):
        node = Asked()
        result = revoking(tmp_path, *map(str, more), revoke=node.revoke)
        assert (result.exit_code, node.ids) == (code, [])
        assert text not in result.output
        assert "a whole key is not one" in result.stderr


def rotated(directory: Path, *answers: RevokedKeys | Exception) -> Result:
    """The result of a rotation while nodes n1, n2, … give these answers about revoked keys."""
    full = ["keys", "rotate", "--config", str(directory / "cluster.yaml"), first_key(directory), "--grace", "24h"]

    def serve(number: int) -> Result:
        if number > len(answers):
            return CliRunner().invoke(main, full)

        def revoked() -> RevokedKeys:
            answer = answers[number - 1]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return serving(directory / f"n{number}", lambda: serve(number + 1), revoked=revoked)

    return serve(1)


def test_a_key_that_is_revoked_in_the_cluster_is_not_rotated_whatever_the_file_says(tmp_path: Path) -> None:
    key_id, file = first_key(tmp_path), tmp_path / "api_keys.yaml"
    before, revoked = file.read_bytes(), RevokedKeys("n1", [key_id], current=True)
    behind, older = RevokedKeys("n1", [], current=False), NotFound("no such path")
    for said in ([revoked], [behind, revoked], [older, revoked], [RevokedKeys("n1", [key_id], current=False), behind]):
        result = rotated(tmp_path, *said)
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"key {key_id} is revoked in the cluster" in result.stderr
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("answers", "warns"),
    [
        ([], True),
        ([RevokedKeys("n1", [], current=False)], True),
        ([NotFound("no such path")], True),
        ([RevokedKeys("n1", ["3fq7tzd2"], current=True)], False),
    ],
)
def test_a_key_is_rotated_with_a_warning_if_nobody_can_tell(
    tmp_path: Path, answers: list[RevokedKeys | Exception], warns: bool
) -> None:
    result = rotated(tmp_path, *answers)
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)
    assert ("Warning: no node here can tell" in result.stderr) is warns
