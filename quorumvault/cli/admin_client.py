"""Sends requests to a node on this host, through its admin socket."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from quorumvault.errors import NoQuorum, NotRunning, QuorumVaultError, Refused, UnexpectedAnswer
from quorumvault.server.backup.format import Broken, Reader
from quorumvault.server.http.admin.schemas import NodeStatus, Reloaded, Repaired, RevokedKey, RevokedKeys, Stopping, Verified
from quorumvault.server.http.admin.socket import FILE_NAME, short_path

AnswerT = TypeVar("AnswerT")

#: The time-out of short requests. A node answers them from memory, so one that takes this long hangs.
_SECONDS = 10.0
#: The time-out of requests that read all records, which takes about ten minutes for 100 million.
_LONG_SECONDS = 3600.0


class AdminClient:
    """The node whose data is in ``directory``. All methods raise NotRunning if no node answers there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def status(self) -> NodeStatus:
        return self._ask("GET", "/status", NodeStatus)

    def reload(self) -> Reloaded:
        return self._ask("POST", "/reload", Reloaded)

    def stop(self) -> Stopping:
        """Asks the node to drain. The node still runs when this returns."""
        return self._ask("POST", "/stop", Stopping)

    def repair(self, *, accept_loss: bool = False) -> Repaired:
        """Compares the node with its peers and mends differences; with ``accept_loss``, then gives up what no disk can read."""
        return self._ask("POST", "/repair?accept_loss=yes" if accept_loss else "/repair", Repaired, seconds=_LONG_SECONDS)

    def verify(self) -> Verified:
        """Compares the node with its peers, record by record. Returns when the comparison is done."""
        return self._ask("POST", "/verify", Verified, seconds=_LONG_SECONDS)

    def revoke(self, key_id: str) -> RevokedKey:
        """Revokes the API key with this id in the whole cluster, on two disks before it returns. Raises NoQuorum."""
        return self._ask("POST", f"/revoke?{urlencode({'key_id': key_id})}", RevokedKey)

    def revoked(self) -> RevokedKeys:
        return self._ask("GET", "/revoked", RevokedKeys)

    @contextmanager
    def backup(self) -> Iterator[Reader]:
        """Yields a backup to read in the block.

        Raises NoQuorum if no two active disks can be read, Refused if they have data that could not be restored. Both may be
        raised until the trailer has been read; without its trailer a backup is not valid.
        """
        with self._answer("POST", "/backup", seconds=_LONG_SECONDS) as answer:
            try:
                yield Reader(answer, answer.where)
            except Broken as broken:
                raise (NoQuorum if broken.code == NoQuorum.code else Refused)(broken.why) from None

    def _ask(self, method: str, path: str, kind: type[AnswerT], *, seconds: float = _SECONDS) -> AnswerT:
        with self._answer(method, path, seconds=seconds) as answer:
            content = answer.read()
        try:
            return msgspec.json.decode(content, type=kind)
        except (ValueError, RecursionError):
            raise UnexpectedAnswer(f"{answer.where}: {method} {path}: the answer is of another release, or no node's") from None

    @contextmanager
    def _answer(self, method: str, path: str, *, seconds: float) -> Iterator[_Answer]:
        """Yields an answer to read in the block. Raises the error that a refusal names."""
        where = self._directory / FILE_NAME
        with ExitStack() as ending:
            try:
                address = ending.enter_context(short_path(self._directory))
                connection = ending.enter_context(closing(_Connection(address, seconds)))
                connection.request(method, path)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise _not_running(where, error) from None
            answer = _Answer(where, response)
            if response.status >= http.client.BAD_REQUEST:
                raise _refusal(f"{where}: {method} {path} was answered with {response.status}", answer.read())
            yield answer


class _Answer:
    """The body of a node's answer, read as it arrives. Raises NotRunning if it ends in the middle."""

    def __init__(self, where: Path, response: http.client.HTTPResponse) -> None:
        self.where = where
        self._response = response

    def read(self, size: int | None = None, /) -> bytes:
        try:
            return self._response.read(size)
        except http.client.IncompleteRead:
            raise NotRunning(f"{self.where}: the answer ends in the middle: the node has ended, or its log says why") from None
        except (OSError, http.client.HTTPException) as error:
            raise _not_running(self.where, error) from None


def _not_running(where: Path, error: OSError | http.client.HTTPException) -> NotRunning:
    why = error.strerror if isinstance(error, OSError) and error.strerror else error
    return NotRunning(f"{where}: {why}: does the node run, on this host, and as this user?")


class _Problem(msgspec.Struct):
    """The members of problem details that this module uses."""

    code: str
    detail: str


def _refusal(answered: str, content: bytes) -> QuorumVaultError:
    try:
        problem = msgspec.json.decode(content, type=_Problem)
    except (ValueError, RecursionError):
        return UnexpectedAnswer(f"{answered}: {content.decode(errors='replace')}")
    return NoQuorum(problem.detail) if problem.code == NoQuorum.code else UnexpectedAnswer(f"{answered}: {problem.detail}")


class _Connection(http.client.HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, address: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._address = address

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._address)
