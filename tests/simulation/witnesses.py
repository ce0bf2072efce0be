"""Witnesses of absence: "not found" needs two disks that said "absent" in the last round that asked.

Witnesses watch the replies on their way to the coordinator, not the coordinator's conclusions from them.
"""

from collections import Counter, defaultdict
from collections.abc import Coroutine, Generator
from typing import Any, cast

from chaos.testbed.checkers import NOT_FOUND
from chaos.testbed.history import Complete, Invoke
from chaos.testbed.violation import Violation
from quorumvault.crypto.tokens import parse_token
from quorumvault.model import QUORUM
from quorumvault.protocol.messages import AnyReply, AnyRequest, Get, Holds, OtherView, RoundId
from quorumvault.protocol.peer import NoReply, OnReply

#: Epoch and digest: a key of the operation's owner.
_Key = tuple[int, bytes]


class Witnesses:
    """``branches`` counts replies that refused a view."""

    def __init__(self, branches: Counter[str]) -> None:
        self._branches = branches
        self._asking: int | None = None
        #: By round: the disks that said "absent" for each key. Then, by operation under way: its rounds.
        self._absent: dict[RoundId, dict[_Key, set[bytes]]] = {}
        self._rounds: defaultdict[int, list[RoundId]] = defaultdict(list)
        #: The first record that was told alone and must not have been, in words.
        self._too_few: str | None = None
        #: By operation that has ended at its coordinator: how many witnesses each key has.
        self._counts: dict[int, dict[_Key, int]] = {}

    def steps_of(self, op: int, work: Coroutine[Any, Any, object]) -> Generator[Any, None, object]:
        """Runs a coroutine step by step; rounds that begin meanwhile belong to this operation."""
        while True:
            self._asking = op
            try:
                future = work.send(None)
            except StopIteration as end:
                return end.value
            finally:
                self._asking = None
            yield future

    def asked(self, request: AnyRequest, on_reply: OnReply) -> OnReply:
        """A request is sent. Returns the callback that its reply has to go through."""
        if isinstance(request, Get) and self._asking is not None and request.round not in self._absent:
            self._absent[request.round] = {key: set() for key in zip(request.epochs, request.digests, strict=True)}
            self._rounds[self._asking].append(request.round)

        def hear(reply: AnyReply | NoReply) -> None:
            if isinstance(reply, OtherView):
                self._branches["view refusal"] += 1
            elif isinstance(reply, Holds) and (absent := self._absent.get(request.round)) and reply.round == request.round:
                for index, (disks, record) in enumerate(zip(absent.values(), reply.records, strict=True)):
                    if record is None and index not in reply.unknown:
                        disks.add(reply.disk)
            on_reply(reply)

        return hear

    def told_alone(self, key: bytes, holders: int) -> None:
        """A replica tells a record alone. ``holders`` disks of its view hold it durably; ``check`` raises if they are too few."""
        if holders < QUORUM and self._too_few is None:
            self._too_few = f"{key.hex()} is told alone, and is on {holders} disks of the view"

    def close(self, op: int) -> None:
        """The coordinator has its answer: later replies had no part in it."""
        counts = self._counts[op] = {}
        for round_id in self._rounds.pop(op, ()):
            counts.update({key: len(disks) for key, disks in self._absent.pop(round_id).items()})

    def check(self, asked: Invoke, told: Complete) -> None:
        """Raises Violation if a client was told "not found" on the word of fewer than two disks."""
        if self._too_few is not None:
            raise Violation("settled", self._too_few)
        counts = self._counts.pop(told.op, {})
        for token, answer in zip(asked.given, told.answers, strict=False):
            if answer != NOT_FOUND:
                continue
            found = counts.get(cast("_Key", parse_token(token)), 0)
            if found < QUORUM:
                raise Violation("witnesses", f"operation {told.op}: {token} is not found, by the word of {found} disks")
