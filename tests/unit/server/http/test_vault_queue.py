"""The queue at the vault: few values are handled at once, owners take turns, and a request that waits in vain does no work."""

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorumvault.errors import Busy
from quorumvault.model import Owner
from quorumvault.server.http.vault_queue import AT_ONCE, FEW, VaultQueue

#: Longer than anything here takes.
PATIENCE = 60.0
TURNS = 6


async def settled() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


class Crowd:
    """Requests in one queue. ``order`` has the names of those that got a turn; each keeps its turn until the test ends it."""

    def __init__(self) -> None:
        self.queue = VaultQueue()
        self.order: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, items: int, seconds: float = PATIENCE) -> None:
        """Queue a request. The first letter of its name is its owner."""
        self._ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.ensure_future(self._ask(name, items, seconds))
        await settled()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await settled()

    async def _ask(self, name: str, items: int, seconds: float) -> None:
        async with self.queue.turn(Owner(name[0]), items, seconds):
            self.order.append(name)
            await self._ends[name].wait()

    async def all_end(self) -> None:
        for name in self._ends:
            self._ends[name].set()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        assert (self.queue.under_way, self.queue._queue._waiting) == (0, {})


async def test_requests_for_many_values_are_worked_on_few_at_a_time() -> None:
    crowd = Crowd()
    for name in ("a1", "a2", "a3"):
        await crowd.come(name, AT_ONCE // 2)
    assert crowd.order == ["a1", "a2"]
    await crowd.end("a2")
    assert crowd.order == ["a1", "a2", "a3"]
    await crowd.all_end()


async def test_a_small_one_waits_for_nobody_and_a_huge_one_for_all_that_came_before() -> None:
    crowd = Crowd()
    await crowd.come("a", AT_ONCE)
    await crowd.come("b", 10 * AT_ONCE)
    await crowd.come("c", FEW)
    await crowd.come("d", FEW + 1)
    assert crowd.order == ["a", "c"]
    await crowd.end("a")
    assert crowd.order == ["a", "c", "b"]
    await crowd.end("b")
    assert crowd.order == ["a", "c", "b", "d"]
    await crowd.all_end()


async def test_owners_have_their_turns_one_after_the_other() -> None:
    crowd = Crowd()
    for name in ("a1", "a2", "a3", "a4", "b1", "b2", "c1"):
        await crowd.come(name, AT_ONCE)
    for number in range(7):
        await crowd.end(crowd.order[number])
    assert crowd.order == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]
    await crowd.all_end()


async def test_whoever_waits_too_long_is_told_so_and_stands_in_nobody_s_way() -> None:
    crowd = Crowd()
    await crowd.come("a", AT_ONCE // 2)
    await crowd.come("b", AT_ONCE, seconds=0.0)
    await crowd.come("c", AT_ONCE // 2)
    with pytest.raises(Busy, match="other requests for many values"):
        await crowd.tasks["b"]
    assert crowd.order == ["a", "c"]
    await crowd.all_end()


async def test_a_turn_that_comes_as_its_request_ends_goes_to_the_next_one() -> None:
    crowd = Crowd()
    for name in ("a", "b", "c"):
        await crowd.come(name, AT_ONCE)
    crowd._ends["a"].set()
    await asyncio.sleep(0)  # b has the turn, but does not know it yet
    assert crowd.queue.under_way == AT_ONCE
    crowd.tasks["b"].cancel()
    await settled()
    assert crowd.order == ["a", "c"]
    await crowd.all_end()


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3 * AT_ONCE), st.sampled_from(["stay", "leave", "late"]))))
def test_at_most_so_many_values_are_under_way_and_in_the_end_everybody_had_a_turn(requests: list[tuple[str, int, str]]) -> None:
    async def run() -> None:
        crowd, sizes = Crowd(), {}
        for number, (owner, items, fate) in enumerate(requests):
            name = f"{owner}{number}"
            sizes[name] = items if items > FEW else 0
            await crowd.come(name, items, 0.0 if fate == "late" else PATIENCE)
            if fate == "leave":
                crowd.tasks[name].cancel()
        stays = {f"{owner}{number}" for number, (owner, _, fate) in enumerate(requests) if fate == "stay"}
        for _ in requests:
            await settled()
            has = [name for name, task in crowd.tasks.items() if not task.done() and name in crowd.order]
            assert crowd.queue.under_way == sum(sizes[name] for name in has)
            assert crowd.queue.under_way <= AT_ONCE or sum(sizes[name] > 0 for name in has) == 1
            if has:
                await crowd.end(has[0])
        assert stays <= set(crowd.order)
        with contextlib.suppress(asyncio.CancelledError):
            await crowd.all_end()

    asyncio.run(run())
