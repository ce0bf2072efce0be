"""The client rejects an answer to another request, whatever mixed the answers up, and closes the connection."""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import pytest

from quorumvault import errors
from quorumvault.client import AsyncClient, Client, ClientPolicy, Result
from tests.rigs.clients import InLoop
from tests.rigs.stand_in import LONG, Request, StandIn, standing_in, value_of

KEY = "clinic"
PATIENT = ClientPolicy(request=LONG, connect=LONG, silence=LONG, health_silence=LONG, keep_alive=LONG)
#: Ids that an answer may carry instead of the one that was sent.
OTHERS: list[Callable[[Request], list[str]]] = [
    lambda request: [],
    lambda request: [""],
    lambda request: ["0" * 32],
    lambda request: [request.request_id.upper() + "0"],
    lambda request: [request.request_id, request.request_id],
    lambda request: [request.request_id, "0" * 32],
]


@pytest.fixture
def node() -> Iterator[StandIn]:
    with standing_in() as stand_in:
        yield stand_in


def detokenize(url: str, *tokens: str, kind: Any = Client) -> list[Any]:
    """Detokenize one token after the other with one client. Return each value, or the class of the error raised."""
    told: list[Any] = []
    with kind(url, api_key=KEY, policy=PATIENT) as vault:
        vault.limits()
        for token in tokens:
            try:
                told.append(vault.detokenize([token])[0].value)
            except errors.QuorumVaultError as error:
                told.append(type(error))
    return told


both = pytest.mark.parametrize("kind", [Client, InLoop])


@both
@pytest.mark.parametrize("ids", OTHERS, ids=["none", "empty", "another", "longer", "twice", "two"])
def test_a_success_under_another_id_is_not_taken_and_its_connection_is_closed(
    node: StandIn, ids: Callable[[Request], list[str]], kind: Any
) -> None:
    def behave(request: Request) -> None:
        request.send(request.reply(ids=ids(request) if request.token == "first" else None))

    node.behave = behave
    assert detokenize(node.url, "first", "second", kind=kind) == [errors.UnexpectedAnswer, value_of("second")]
    assert node.connections_of("first") == {0}
    assert node.connections_of("second") == {1}


@both
def test_an_answer_that_comes_twice_is_no_answer_to_the_next_request(node: StandIn, kind: Any) -> None:
    """Both copies arrive at once: the client reads the second along with the first, so a check of the socket cannot find it."""
    node.behave = lambda request: request.send(request.reply() * (2 if request.token == "first" else 1))
    assert detokenize(node.url, "first", "second", "third", kind=kind) == [
        value_of("first"),
        errors.UnexpectedAnswer,
        value_of("third"),
    ]
    assert node.connections_of("third") == {1}


@both
@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxys_error_has_no_id_and_is_retried(node: StandIn, status: int, kind: Any) -> None:
    """The retry uses another connection: a connection whose proxy has lost its node is not relied on."""
    replies = iter([status, 200])

    def behave(request: Request) -> None:
        told = next(replies) if request.token else 200
        request.send(request.reply(told, ids=[] if told != 200 else None))

    node.behave = behave
    assert detokenize(node.url, "only", kind=kind) == [value_of("only")]
    tries = [request for request in node.requests if request.token]
    assert [request.connection for request in tries] == [0, 1]
    assert tries[0].request_id == tries[1].request_id


@pytest.mark.parametrize(
    ("status", "has_id"), [(301, False), (400, False), (401, False), (404, False), (429, False), (500, False), (503, True)]
)
def test_any_other_error_without_the_id_is_unexpected(node: StandIn, status: int, has_id: bool) -> None:
    """This also holds if the body is one of this API's problems: a node's own error would have the id."""
    ids = ["0" * 32] if has_id else []
    node.behave = lambda request: request.send(request.reply(status if request.token else 200, ids if request.token else None))
    assert detokenize(node.url, "only") == [errors.UnexpectedAnswer]
    assert len(node.requests) == 2


def test_a_nodes_error_has_the_id_and_is_told_as_it_is(node: StandIn) -> None:
    node.behave = lambda request: request.send(request.reply(403 if request.token else 200))
    assert detokenize(node.url, "only", "again") == [errors.NotPermitted, errors.NotPermitted]
    assert node.connections_of("again") == {0}


def test_the_error_says_what_may_be_wrong_and_who_answered(node: StandIn) -> None:
    node.behave = lambda request: request.send(request.reply(ids=[]))
    with Client(node.url, api_key=KEY, policy=PATIENT) as vault, pytest.raises(errors.UnexpectedAnswer) as caught:
        vault.epoch()
    words = str(caught.value)
    assert "does not carry the X-Request-ID that was sent" in words
    assert "does a proxy in front of it pass that header on as it is" in words
    assert node.url in words
    assert caught.value.request_id == node.requests[0].request_id


def reply(request: Request, status: int, ids: list[str]) -> None:
    request.send(request.reply(status, ids))


def test_health_under_another_id_is_nobodys(node: StandIn) -> None:
    with Client(node.url, policy=PATIENT) as vault:
        for status, ids in ((200, []), (200, ["0" * 32]), (503, []), (503, ["0" * 32])):
            node.behave = partial(reply, status=status, ids=ids)
            (told,) = vault.health()
            assert told.report is None
            assert told.problem
        node.behave = lambda request: request.send(request.reply(503))
        assert vault.health()[0].report is not None


# Late answers


@both
def test_an_answer_that_comes_after_its_call_was_given_up_is_nobodys(node: StandIn, kind: Any) -> None:
    once = msgspec.structs.replace(PATIENT, retries_saved=0, retries_per_second=0)
    with kind(node.url, api_key=KEY, policy=once, clock=lambda: 0.0) as vault:
        vault.limits()
        held = node.hold()
        with pytest.raises(errors.Unreachable):
            vault.detokenize(["late"], deadline=0.1)
        late = held.get(timeout=LONG)
        assert node.closed.get(timeout=LONG) == late.connection
        node.behave = Request.answer
        assert vault.detokenize(["next"])[0].value == value_of("next")
    assert not node.connections_of("late") & node.connections_of("next")


def test_nor_is_one_whose_task_was_cancelled(node: StandIn) -> None:
    async def cancelled() -> Result:
        async with AsyncClient(node.url, api_key=KEY, policy=PATIENT) as vault:
            await vault.limits()
            held = node.hold()
            task = asyncio.create_task(vault.detokenize(["late"]))
            late = await asyncio.to_thread(held.get, timeout=LONG)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(node.closed.get, timeout=LONG) == late.connection
            node.behave = Request.answer
            return (await vault.detokenize(["next"]))[0]

    assert asyncio.run(cancelled()).value == value_of("next")
    assert not node.connections_of("late") & node.connections_of("next")
