"""The asyncio client: a shell that carries out the plans, and awaits where client/sync.py blocks."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

import httpx2

from quorumvault.client import wire
from quorumvault.client.deadline import Deadline
from quorumvault.client.operations import ArrowOperation, Operations
from quorumvault.client.plan import Clock, EffectResult, NoReply, Pause, Plan, Reply, ResultT, Send
from quorumvault.client.policy import ClientPolicy
from quorumvault.client.results import Limits, NodeHealth, Result, TokenizedRecords, TokenResult, Value
from quorumvault.client.settings import resolve
from quorumvault.client.shell import Shell


class _Connections(NamedTuple):
    """Connections of one process. ``loops`` has one entry: the event loop that they belong to."""

    http: httpx2.AsyncClient
    loops: dict[str, asyncio.AbstractEventLoop]

    def enter(self) -> httpx2.AsyncClient:
        """Raises RuntimeError in any event loop but the first one that entered."""
        running = asyncio.get_running_loop()
        if self.loops.setdefault("the loop", running) is not running:  # atomic, since loops of two threads may race here
            raise RuntimeError("an AsyncClient works in one event loop, and this is its second: make another one in this loop")
        return self.http


class AsyncClient(Shell[_Connections]):
    """``Client`` for asyncio: the same arguments, methods, results and errors; the methods are coroutines.

    import quorumvault as qv

    async with qv.AsyncClient("http://n1:8700,http://n2:8700,http://n3:8700", api_key=key) as vault:
        tokens = await vault.tokenize(["123-45-6789", "42", None])
        values = [result.value for result in await vault.detokenize(tokens)]

    Event loops: a client works in the first event loop that uses it, and raises RuntimeError in any other of the same process.
    Make one client in each ``asyncio.run``, and in each thread with a loop. Forked processes: a client made before the fork works
    in each process, in one event loop each, with connections of its own. For spawned processes, pickling, and which answers the
    client accepts, see Client.
    """

    @staticmethod
    def _connect(**options: Any) -> _Connections:
        return _Connections(httpx2.AsyncClient(**options), {})

    def __init__(
        self,
        urls: str | Sequence[str] | None = None,
        *,
        api_key: str | None = None,
        purpose: str | None = None,
        cacert: Path | str | None = None,
        client_cert: Path | str | None = None,
        policy: ClientPolicy | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        settings = resolve(urls, api_key, purpose, cacert, os.environ, client_cert)
        super().__init__(settings, policy or ClientPolicy(), clock, rng, transport)
        self._sleep = sleep

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """See Client.close."""
        own = self._own.end()
        if own is not None:
            await own.http.enter().aclose()

    async def tokenize(self, values: Sequence[Value], *, deadline: float | None = None) -> list[str | None]:
        """See Client.tokenize."""
        return await self._run(self._plans.tokenize(values, deadline=deadline))

    async def tokenize_records(self, records: Sequence[Mapping[str, Any]], *, deadline: float | None = None) -> TokenizedRecords:
        """See Client.tokenize_records."""
        return await self._run(self._plans.tokenize_records(records, deadline=deadline))

    async def detokenize(
        self, tokens: Sequence[str | None], *, missing: Literal["null", "error"] = "null", deadline: float | None = None
    ) -> list[Result]:
        """See Client.detokenize."""
        return await self._run(self._plans.detokenize(tokens, missing=missing, deadline=deadline))

    async def exchange_arrow(
        self, operation: ArrowOperation, encode: Callable[[slice], bytes], count: int, *, deadline: float | None = None
    ) -> list[tuple[slice, bytes]]:
        """See Client.exchange_arrow."""
        return await self._run(self._plans.exchange_arrow(operation, encode, count, deadline=deadline))

    async def retokenize(self, tokens: Sequence[str | None], *, deadline: float | None = None) -> list[TokenResult]:
        """See Client.retokenize."""
        return await self._run(self._plans.retokenize(tokens, deadline=deadline))

    async def tokens_all_epochs(self, values: Sequence[Value], *, deadline: float | None = None) -> list[list[str] | None]:
        """See Client.tokens_all_epochs."""
        return await self._run(self._plans.tokens_all_epochs(values, deadline=deadline))

    async def rotate(self, from_epoch: int, *, deadline: float | None = None) -> int:
        """See Client.rotate."""
        return await self._run(self._plans.rotate(from_epoch, deadline=deadline))

    async def epoch(self, *, deadline: float | None = None) -> int:
        """See Client.epoch."""
        return await self._run(self._plans.epoch(deadline=deadline))

    async def fields(self, *, deadline: float | None = None) -> list[str]:
        """See Client.fields."""
        return await self._run(self._plans.fields(deadline=deadline))

    async def limits(self, *, deadline: float | None = None) -> Limits:
        """See Client.limits."""
        return await self._run(self._plans.limits(deadline=deadline))

    async def health(self) -> list[NodeHealth]:
        """See Client.health."""
        return await self._run(self._plans.health())

    @property
    def _plans(self) -> Operations:
        own = self._own.get()
        own.http.enter()
        return own.plans

    async def _run(self, plan: Plan[ResultT]) -> ResultT:
        outcome: EffectResult = None
        while True:
            try:
                effect = plan.send(outcome)
            except StopIteration as stop:
                result: ResultT = stop.value
                return result
            if isinstance(effect, Pause):
                await self._sleep(effect.seconds)
                outcome = None
            else:
                outcome = await self._send(effect)

    async def _send(self, send: Send) -> Reply | NoReply:
        now, http, loop = self._clock(), self._own.get().http.enter(), asyncio.get_running_loop()
        deadline = Deadline(send, self._policy, send.until - now, loop.time)

        async def trace(event: str, info: dict[str, Any]) -> None:
            if deadline.advance(event) and not limit.expired():
                limit.reschedule(deadline.by)

        options = wire.options(send, self._policy, now, trace)
        try:
            # Without a limit at first: the wait for a connection has a timeout of its own, and is no silence of the node.
            async with asyncio.timeout(None) as limit, http.stream(send.method, send.url, **options) as response:
                return wire.not_ours(send, response) or await self._read(send, response)
        except TimeoutError:
            return wire.SILENT
        except httpx2.HTTPError as error:
            return wire.no_reply(error)

    async def _read(self, send: Send, response: httpx2.Response) -> Reply | NoReply:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > self._policy.reply_bytes:
                return wire.OVERLONG
            if self._clock() > send.until:
                return wire.SILENT
        return wire.reply(response, bytes(body))
