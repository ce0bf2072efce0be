"""The asyncio client against a cluster whose nodes are killed, frozen and restarted: callers notice only longer waits."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx2

from chaos.testbed.cluster import NODES, Cluster
from quorumvault.client import AsyncClient, ClientPolicy, wire

OWNER = "clinic"
CALLS, TASKS, VALUES = 6_000, 32, 2_500
#: Calls between two changes of the cluster.
CALM = 300
PATIENCE = 60.0


class Watched(httpx2.AsyncHTTPTransport):
    """The real transport, which also counts failures by the node's port and the kind of error."""

    def __init__(self, policy: ClientPolicy) -> None:
        super().__init__(limits=wire.limits(policy))
        self.failed: Counter[tuple[int | None, type[BaseException]]] = Counter()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await super().handle_async_request(request)
        except (httpx2.HTTPError, asyncio.CancelledError) as error:  # cancelled: out of time
            self.failed[request.url.port, type(error)] += 1
            raise


@dataclass
class Calls:
    """Tasks that tokenize, detokenize and retokenize. Their answers have to agree for ever."""

    vault: AsyncClient
    tokens: dict[str, str] = field(default_factory=dict)
    done: int = 0
    failures: list[Exception] = field(default_factory=list)
    faults_over: bool = False
    #: Set by every call that ends.
    progress: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Runs until there were enough calls and no more faults will come."""
        async with asyncio.TaskGroup() as group:
            for number in range(TASKS):
                group.create_task(self._one_after_the_other(random.Random(number)))

    async def _one_after_the_other(self, rng: random.Random) -> None:
        while self.done < CALLS or not self.faults_over:
            value = f"patient {rng.randrange(VALUES)}"
            try:
                await self._call(rng.choice(("tokenize", "detokenize", "retokenize")), value)
            except Exception as error:
                self.failures.append(error)
            self.done += 1
            self.progress.set()

    async def _call(self, operation: str, value: str) -> None:
        known = self.tokens.get(value)
        if known is None or operation == "tokenize":
            (token,) = await self.vault.tokenize([value])
            assert token is not None
            assert self.tokens.setdefault(value, token) == token
        elif operation == "detokenize":
            (result,) = await self.vault.detokenize([known])
            assert (result.status, result.value) == ("ok", value)
        else:
            (moved,) = await self.vault.retokenize([known])
            assert (moved.status, moved.token) == ("ok", known)


@dataclass
class Nemesis:
    """Injects one fault after the other, never two at once. Each lasts until a call has run into it."""

    cluster: Cluster
    calls: Calls
    transport: Watched

    async def run(self) -> None:
        await self._calm()
        self.cluster.kill("n1")
        await self._felt("n1", httpx2.ConnectError)
        await self._calm()
        self.cluster.start("n1")
        await self._whole()
        self.cluster.pause("n2")
        await self._felt("n2", httpx2.ReadTimeout, asyncio.CancelledError)
        await self._calm()
        self.cluster.resume("n2")
        await self._whole()
        self.cluster.restart("n3")
        await self._whole()
        self.calls.faults_over = True

    async def _felt(self, node: str, *errors: type[BaseException]) -> None:
        port = httpx2.URL(self.cluster.url(node)).port
        await self._until(lambda: any(self.transport.failed[port, error] > 0 for error in errors))

    async def _calm(self) -> None:
        enough = self.calls.done + CALM
        await self._until(lambda: self.calls.done >= enough)

    async def _whole(self) -> None:
        await asyncio.to_thread(self.cluster.wait_ready, reachable=3)
        await self._calm()

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.calls.progress.clear()
                await self.calls.progress.wait()


def test_no_call_fails_and_no_answer_changes_while_nodes_are_killed_frozen_and_restarted(own_cluster: Cluster) -> None:
    async def scenario() -> Calls:
        policy = ClientPolicy()
        transport = Watched(policy)
        urls = [own_cluster.url(node) for node in NODES]
        async with AsyncClient(urls, api_key=own_cluster.api_key(OWNER), policy=policy, transport=transport) as vault:
            calls = Calls(vault)
            async with asyncio.TaskGroup() as group:
                group.create_task(calls.run())
                group.create_task(Nemesis(own_cluster, calls, transport).run())
            return calls

    calls = asyncio.run(scenario())
    assert calls.failures == []
    assert calls.done >= CALLS
    values, tokens = list(calls.tokens), list(calls.tokens.values())
    assert len(values) > VALUES // 2
    assert len(set(tokens)) == len(tokens)
    for node in NODES:
        answer = own_cluster.api(node, OWNER).detokenize(tokens)
        assert [result["value"] for result in answer.body["results"]] == values
