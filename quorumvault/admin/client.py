"""Asks a node on this host, through its administrative socket."""

from __future__ import annotations

import http.client
import socket
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import msgspec

from quorumvault.admin.bodies import NodeStatus, Reloaded, Repaired, Stopping, Verified
from quorumvault.admin.socket import FILE_NAME, short_path
from quorumvault.errors import NotRunning, UnexpectedAnswer

AnswerT = TypeVar("AnswerT")

#: What is asked here is answered from memory; a node that takes this long hangs.
_SECONDS = 10.0
#: What goes through all records: some ten minutes for 100 million.
_LONG_SECONDS = 3600.0


class AdminClient:
    """The node whose data is in ``directory``. All raise NotRunning if nobody answers there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def status(self) -> NodeStatus:
        return self._ask("GET", "/status", NodeStatus)

    def reload(self) -> Reloaded:
        return self._ask("POST", "/reload", Reloaded)

    def stop(self) -> Stopping:
        """The node drains; it still runs when this returns."""
        return self._ask("POST", "/stop", Stopping)

    def repair(self) -> Repaired:
        """Compare the node with its peers and mend what differs. Returns when that is done."""
        return self._ask("POST", "/repair", Repaired, seconds=_LONG_SECONDS)

    def verify(self) -> Verified:
        """Compare the node with its peers, record by record. Returns when that is done."""
        return self._ask("POST", "/verify", Verified, seconds=_LONG_SECONDS)

    def _ask(self, method: str, path: str, kind: type[AnswerT], *, seconds: float = _SECONDS) -> AnswerT:
        where = self._directory / FILE_NAME
        try:
            with short_path(self._directory) as address, closing(_Connection(address, seconds)) as connection:
                connection.request(method, path)
                answer = connection.getresponse()
                content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise NotRunning(f"{where}: {why}: does the node run, on this host, and as this user?") from None
        if answer.status >= http.client.BAD_REQUEST:
            raise UnexpectedAnswer(f"{where}: {method} {path} was answered with {answer.status}: {content.decode()}")
        return msgspec.json.decode(content, type=kind)


class _Connection(http.client.HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, address: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._address = address

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._address)
