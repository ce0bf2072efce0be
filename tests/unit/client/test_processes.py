"""A client in several processes, threads and event loops: each has its own connections, and none gets another's answer."""

import asyncio
import copy
import gc
import multiprocessing
import os
import pickle
import random
import ssl
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quorumvault.client import AsyncClient, Client, ClientPolicy
from quorumvault.client.processes import EachProcess
from tests.rigs.certificates import certificate
from tests.rigs.clients import InLoop
from tests.rigs.served import answering
from tests.rigs.stand_in import LONG, Forked, Request, StandIn, standing_in, value_of

# These tests fork a process that has threads: those of the stand-in node. Python 3.12 and later warn about that.
# Other tests load DuckDB, Polars or Arrow, whose threads may hold a lock at a fork; the forked process would then wait for
# that lock forever. So these tests run with the cluster tests.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.slow,
    pytest.mark.cluster,
]

KEY = "clinic"
#: No try is given up and no connection dropped because the machine is slow.
PATIENT = ClientPolicy(request=LONG, connect=LONG, silence=LONG, keep_alive=LONG)


@pytest.fixture
def node() -> Iterator[StandIn]:
    with standing_in() as stand_in:
        yield stand_in


def ask(vault: Any, token: str) -> Any:
    return vault.detokenize([token], deadline=LONG)[0].value


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_that_nobody_holds_is_freed_without_a_garbage_collection(kind: Any) -> None:
    gc.disable()
    try:
        freed = weakref.ref(kind("http://127.0.0.1:1", api_key=KEY))
        assert freed() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", [Client, InLoop])
def test_a_forked_process_and_its_parent_do_not_read_each_others_answers(node: StandIn, kind: Any) -> None:
    """Both ask, the forked process first. It is stopped until this process has an answer; both answers come after both requests.

    On a shared connection the forked process's answer would come first, and this process would read it.
    """
    with kind(node.url, api_key=KEY, policy=PATIENT) as vault:
        assert ask(vault, "before") == value_of("before")  # leaves an idle connection
        held = node.hold()
        child = Forked(lambda: ask(vault, "theirs"))
        theirs = held.get(timeout=LONG)
        if theirs.path == "/limits":
            node.behave = lambda request: request.answer() if request.path == "/limits" else held.put(request)
            theirs.answer()
            theirs = held.get(timeout=LONG)
        child.stop()
        node.behave = lambda request: (theirs.answer(), request.answer())
        assert ask(vault, "ours") == value_of("ours")
        child.go_on()
        assert child.result() == value_of("theirs")
    assert node.connections_of("ours") == node.connections_of("before")
    assert not node.connections_of("theirs") & node.connections_of("ours")


def in_threads(vault: Client, name: str, count: int) -> list[Any]:
    """Ask from ``count`` threads at once, all for the first time in their process. Return whether each answer is right."""
    together = threading.Barrier(count)

    def one(number: int) -> Any:
        together.wait(LONG)
        return [ask(vault, f"{name}-{number}") == value_of(f"{name}-{number}") for _ in range(3)]

    with ThreadPoolExecutor(count) as pool:
        return [right for each in pool.map(one, range(count)) for right in each]


def processes_on_connections(node: StandIn) -> list[set[str]]:
    """For each connection, the processes that asked on it: the part of each token before the first hyphen."""
    on: dict[int, set[str]] = {}
    for request in node.requests:
        if request.token is not None:
            on.setdefault(request.connection, set()).add(request.token.partition("-")[0])
    return list(on.values())


def test_workers_forked_off_a_process_that_used_the_client_have_their_own_connections(node: StandIn) -> None:
    with Client(node.url, api_key=KEY, policy=PATIENT, rng=random.Random(1)) as vault:
        assert all(in_threads(vault, "master", 4))
        workers = [Forked(partial(in_threads, vault, f"worker{number}", 4)) for number in range(4)]
        assert all(in_threads(vault, "master", 4))
        for worker in workers:
            assert worker.result() == [True] * 12
    assert all(len(each) == 1 for each in processes_on_connections(node))
    by_id = [request.request_id for request in node.requests]
    assert len(by_id) == len(set(by_id))


_pools: dict[str, Client] = {}


def ask_in_a_pool(number: int) -> tuple[int, bool]:
    token = f"{os.getpid()}-{number}"
    return os.getpid(), ask(_pools["its"], token) == value_of(token)


def test_a_pool_of_forked_processes_may_use_a_client_of_their_parent(node: StandIn) -> None:
    with Client(node.url, api_key=KEY, policy=PATIENT) as _pools["its"]:
        assert ask_in_a_pool(0)[1]
        with multiprocessing.get_context("fork").Pool(3) as pool:
            told = pool.map(ask_in_a_pool, range(60), chunksize=1)
    assert all(right for _, right in told)
    assert all(len(each) == 1 for each in processes_on_connections(node))


def open_in_a_worker(url: str) -> None:
    _pools["its"] = Client(url, api_key=KEY, policy=PATIENT)


def test_a_pool_of_spawned_processes_makes_clients_in_its_initializer(node: StandIn) -> None:
    context = multiprocessing.get_context("spawn")
    with Client(node.url, api_key=KEY, policy=PATIENT) as vault, context.Pool(2, open_in_a_worker, (node.url,)) as pool:
        with pytest.raises(TypeError, match="a Client cannot be pickled or copied: make one in each process"):
            pool.map(vault.detokenize, [["token"]])
        assert all(right for _, right in pool.map(ask_in_a_pool, range(8), chunksize=1))


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("attempt", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_client_is_not_pickled_and_not_copied(kind: Callable[..., object], attempt: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="make one in each process"):
        attempt(kind("http://n1", api_key=KEY))


def test_a_thread_that_forks_while_others_are_in_the_middle_of_calls(node: StandIn) -> None:
    """The other threads hold every connection that the client may have, and do not exist in the forked process."""
    with (
        Client(node.url, api_key=KEY, policy=msgspec.structs.replace(PATIENT, connections=2)) as vault,
        ThreadPoolExecutor(3) as pool,
    ):
        vault.limits()
        held = node.hold()
        waiting = [pool.submit(ask, vault, f"parent-{number}") for number in range(2)]
        theirs = [held.get(timeout=LONG) for _ in waiting]
        node.behave = Request.answer
        children = pool.submit(lambda: [Forked(lambda: ask(vault, "child-0")) for _ in range(3)]).result(LONG)
        assert [child.result() for child in children] == [value_of("child-0")] * 3
        for request in theirs:
            request.answer()
        assert [each.result(LONG) for each in waiting] == [value_of("parent-0"), value_of("parent-1")]
    assert all(len(each) == 1 for each in processes_on_connections(node))


def test_no_lock_that_is_held_at_a_fork_stops_the_forked_process(node: StandIn) -> None:
    """While processes are forked, threads keep acquiring and releasing the locks of connection pools."""
    over = threading.Event()

    def keep_asking(vault: Client, number: int) -> bool:
        right = True
        while not over.is_set():
            right = right and ask(vault, f"parent-{number}") == value_of(f"parent-{number}")
        return right

    with Client(node.url, api_key=KEY, policy=PATIENT) as vault, ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(keep_asking, vault, number) for number in range(4)]
        try:
            for number in range(20):
                token = f"child{number}-0"
                assert Forked(partial(ask, vault, token)).result() == value_of(token)
        finally:
            over.set()
        assert all(each.result(LONG) for each in asking)
    assert all(len(each) == 1 for each in processes_on_connections(node))


# What belongs to which process


def test_a_process_under_the_id_of_another_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked process may have its parent's id if it has its own namespace, or if its parent has ended."""
    monkeypatch.setattr("os.getpid", lambda: 1)
    each = EachProcess("parent's", lambda: "child's")
    assert each.get() == "parent's"
    assert Forked(lambda: (each.get(), Forked(each.get).result())).result() == ("child's", "child's")
    assert each.get() == "parent's"


def test_a_fork_that_python_was_not_told_of_is_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    each = EachProcess("parent's", lambda: "child's")
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert each.get() == "child's"


def test_a_client_that_was_closed_is_closed_in_forked_processes_too(node: StandIn) -> None:
    vault = Client(node.url, api_key=KEY, policy=PATIENT)
    child = Forked(lambda: (vault.close(), node.url))
    assert child.result() == (None, node.url)
    assert vault.epoch() == 1  # the other process closed only its own connections
    vault.close()
    told = Forked(vault.epoch).result()
    assert isinstance(told, RuntimeError)
    assert "closed before the process was forked off" in str(told)


def test_a_transport_of_the_callers_serves_one_process() -> None:
    vault = Client("http://n1", api_key=KEY, transport=answering(lambda request: pytest.fail("nothing is sent")))
    told = Forked(vault.epoch).result()
    assert isinstance(told, RuntimeError)
    assert "make another one here" in str(told)


def test_an_asyncio_client_works_in_one_event_loop_and_says_so_in_another(node: StandIn) -> None:
    vault = AsyncClient(node.url, api_key=KEY, policy=PATIENT)

    async def use() -> None:
        await vault.epoch()
        await vault.close()

    async def use_in_another() -> None:
        with pytest.raises(RuntimeError, match="works in one event loop, and this is its second: make another one"):
            await vault.epoch()
        with pytest.raises(RuntimeError, match="one event loop"):
            await vault.close()

    asyncio.run(use())
    asyncio.run(use_in_another())
    assert [request.path for request in node.requests] == ["/epoch"]


# TLS


def test_a_forked_process_leaves_its_parents_tls_session_alone(tmp_path: Path) -> None:
    """The parent's connection survives when the forked process closes the client and drops all that the client has."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pem = certificate(tmp_path / "node.pem")
    tls.load_cert_chain(pem)
    with standing_in(tls) as node, Client(node.url, api_key=KEY, policy=PATIENT, cacert=pem) as vault:

        def ask_and_end() -> Any:
            told = ask(vault, "child-0")
            vault.close()
            vars(vault).clear()
            gc.collect()
            return told

        assert ask(vault, "parent-0") == value_of("parent-0")
        assert Forked(ask_and_end).result() == value_of("child-0")
        assert ask(vault, "parent-1") == value_of("parent-1")
        assert node.connections_of("parent-0") == node.connections_of("parent-1")
        assert node.connections_of("child-0") != node.connections_of("parent-1")
