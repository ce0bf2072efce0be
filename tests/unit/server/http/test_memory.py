"""One budget of bytes: requests hold what they paid for, no owner exceeds its share, and waiting requests are served in order."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from quorumvault.config.limits import Limits
from quorumvault.errors import Busy, TooLarge
from quorumvault.model import Owner
from quorumvault.server.http import memory as budget
from quorumvault.server.http.memory import Hold, Memory, cost_of_decoding, cost_of_reading

LIMITS = Limits(memory_bytes=1000, key_share=60)
#: Longer than anything here takes.
PATIENCE = 60.0
SOON = 0.001


class Budget(RuleBasedStateMachine):
    """Requests of three owners take, wait, give back and end, in any order; a plain account tracks what each one has."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.memory = Memory(LIMITS)
        self.holds: list[Hold] = []
        self.has: dict[Hold, int] = {}
        self.waiting: dict[asyncio.Task[None], tuple[Hold, int]] = {}

    def teardown(self) -> None:
        async def end() -> None:
            for task in self.waiting:
                task.cancel()
            await asyncio.gather(*self.waiting, return_exceptions=True)

        self.loop.run_until_complete(end())
        for hold in self.holds:
            hold.release()
        assert (self.memory.held, self.memory.held_for_bodies, self.memory._owners) == (0, 0, {})
        self.loop.close()

    def settle(self) -> None:
        """Let every request that was given what it waited for receive it."""

        async def turns() -> None:
            for _ in range(3):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())
        for task in [task for task in self.waiting if task.done()]:
            hold, more = self.waiting.pop(task)
            task.result()
            self.has[hold] += more

    @rule(owner=st.sampled_from("abc").map(Owner))
    def come(self, owner: Owner) -> None:
        hold = self.memory.hold(owner)
        self.holds.append(hold)
        self.has[hold] = 0

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), more=st.integers(0, 700))
    def take(self, data: st.DataObject, more: int) -> None:
        hold = data.draw(st.sampled_from(self.holds))
        try:
            hold.take(more)
        except (Busy, TooLarge):
            alone = sum(held for other, held in self.has.items() if other.owner == hold.owner) == self.has[hold]
            of_owner = sum(held for other, held in self.has.items() if other.owner == hold.owner)
            assert sum(self.has.values()) + more > 1000 or (of_owner + more > 600 and not alone)
        else:
            self.has[hold] += more

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), more=st.integers(0, 700))
    def wait(self, data: st.DataObject, more: int) -> None:
        hold = data.draw(st.sampled_from(self.holds))
        if self.has[hold] + more <= 1000 and hold not in [waiting for waiting, _ in self.waiting.values()]:
            self.waiting[self.loop.create_task(hold.wait_for(more, PATIENCE))] = (hold, more)
            self.settle()

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), part=st.integers(0, 700))
    def give_back(self, data: st.DataObject, part: int) -> None:
        hold = data.draw(st.sampled_from(self.holds))
        part = min(part, self.has[hold])
        hold.give_back(part)
        self.has[hold] -= part
        self.settle()

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from(self.holds))
        if hold in [waiting for waiting, _ in self.waiting.values()]:
            return
        hold.release()
        hold.release()
        self.holds.remove(hold)
        del self.has[hold]
        self.settle()

    @invariant()
    def what_is_held_is_what_was_paid_for(self) -> None:
        if hasattr(self, "memory"):
            assert self.memory.held == sum(self.has.values()) <= 1000
            assert {hold: hold.held for hold in self.holds} == self.has

    @invariant()
    def the_first_in_line_is_not_kept_waiting(self) -> None:
        first = next(iter(getattr(self, "waiting", {}).values()), None)
        if first is not None:
            assert not self.memory._has_room(*first)


TestBudget = Budget.TestCase


@pytest.fixture
def memory() -> Memory:
    return Memory(LIMITS)


async def test_what_never_fits_is_too_large_and_what_does_not_fit_now_is_busy(memory: Memory) -> None:
    one, other = memory.hold(Owner("a")), memory.hold(Owner("b"))
    with pytest.raises(TooLarge):
        one.take(1001)
    with pytest.raises(TooLarge):
        await one.wait_for(1001, PATIENCE)
    one.take(900)
    with pytest.raises(Busy, match="fill this node's 1000 bytes"):
        other.take(101)
    with pytest.raises(Busy, match="fill this node's 1000 bytes"):
        await other.wait_for(101, SOON)
    other.take(100)
    with pytest.raises(TooLarge):
        one.take(101)


async def test_an_owner_that_is_over_its_share_waits_and_others_pass_it_by(memory: Memory) -> None:
    first, second, other = memory.hold(Owner("a")), memory.hold(Owner("a")), memory.hold(Owner("b"))
    first.take(500)
    with pytest.raises(Busy, match="owner a has as much"):
        second.take(101)
    waits = asyncio.create_task(second.wait_for(101, PATIENCE))
    await asyncio.sleep(0)
    await other.wait_for(400, PATIENCE)
    assert not waits.done()
    first.give_back(1)
    await waits
    assert memory.held == 1000


async def test_one_that_waits_for_the_node_s_memory_is_not_overtaken(memory: Memory) -> None:
    holder, large, small = memory.hold(Owner("a")), memory.hold(Owner("b")), memory.hold(Owner("c"))
    holder.take(600)
    order: list[str] = []

    async def wait(hold: Hold, more: int, name: str) -> None:
        await hold.wait_for(more, PATIENCE)
        order.append(name)

    tasks = [asyncio.create_task(wait(large, 500, "large")), asyncio.create_task(wait(small, 10, "small"))]
    await asyncio.sleep(0)
    assert memory.held == 600
    holder.release()
    await asyncio.gather(*tasks)
    assert order == ["large", "small"]


async def test_who_gives_up_waiting_makes_way(memory: Memory) -> None:
    holder, leaves, stays = memory.hold(Owner("a")), memory.hold(Owner("b")), memory.hold(Owner("c"))
    holder.take(600)
    gone = asyncio.create_task(leaves.wait_for(500, PATIENCE))
    served = asyncio.create_task(stays.wait_for(400, PATIENCE))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    leaves.release()
    await served
    assert memory.held == 1000


async def test_large_requests_are_worked_on_one_at_a_time(memory: Memory) -> None:
    first, second = memory.hold(Owner("a")), memory.hold(Owner("a"))
    await first.enter_lane(PATIENCE)
    await first.enter_lane(PATIENCE)
    with pytest.raises(Busy, match="other large requests"):
        await second.enter_lane(SOON)
    entering = asyncio.create_task(second.enter_lane(PATIENCE))
    await asyncio.sleep(0)
    assert not second.in_lane
    first.leave_lane()
    await entering
    second.release()
    third = memory.hold(Owner("b"))
    await third.enter_lane(PATIENCE)
    third.release()


async def test_few_large_requests_of_one_owner_stand_in_front_of_another_s(memory: Memory) -> None:
    first, others, quiet = memory.hold(Owner("loud")), [memory.hold(Owner("loud")) for _ in range(4)], memory.hold(Owner("quiet"))
    await first.enter_lane(PATIENCE)
    waiting = [asyncio.create_task(hold.enter_lane(PATIENCE)) for hold in others]
    await asyncio.sleep(0)
    mine = asyncio.create_task(quiet.enter_lane(PATIENCE))
    refused = await asyncio.gather(*waiting[2:], return_exceptions=True)
    assert [str(error) for error in refused] == [
        "2 large requests of owner loud wait here; wait for them, or ask another node"
    ] * 2
    first.release()
    for task, hold in zip(waiting[:2], others[:2], strict=True):
        await task
        hold.release()
    await mine
    assert quiet.in_lane


async def test_bodies_fill_a_quarter_of_the_budget_and_those_of_one_owner_a_part_of_that(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "_SMALL_BODY", 9)
    one, other, third, fourth = memory.hold(Owner("a")), memory.hold(Owner("a")), memory.hold(Owner("b")), memory.hold(Owner("c"))
    one.grow_body(100)
    one.grow_body(90)
    other.grow_body(50)
    with pytest.raises(Busy, match="bodies of owner a fill the 150 bytes"):
        other.grow_body(51)
    third.grow_body(100)
    with pytest.raises(Busy, match="bodies under way fill the 250 bytes"):
        fourth.grow_body(10)
    fourth.grow_body(9)
    fourth.take(500)
    assert (memory.held, memory.held_for_bodies) == (759, 250)
    one.body_is_decoded()
    assert (memory.held, memory.held_for_bodies) == (759, 150)
    fourth.grow_body(100)
    for hold in (one, other, third, fourth):
        hold.release()
    assert (memory.held, memory.held_for_bodies) == (0, 0)


@given(st.text(max_size=50), st.integers(0, 5))
def test_decoding_is_paid_for_by_the_widest_character(text: str, commas: int) -> None:
    body = ('["' + text + '"]').encode()
    cost = cost_of_decoding(body, commas)
    assert cost >= len(body) * (3 if text.isascii() else 6) + 176 * (commas + 1)


def test_reading_is_paid_for_by_what_two_replicas_may_answer() -> None:
    limits = Limits()
    one, many = cost_of_reading(1, limits), cost_of_reading(10_000, limits)
    assert one >= 2 * limits.value_bytes
    assert 2 * limits.reply_bytes <= many <= 2 * limits.reply_bytes + 13 * (1 << 20)


async def test_the_large_request_that_is_worked_on_has_no_more_than_its_owner_s_share(memory: Memory) -> None:
    slow, large, quiet = memory.hold(Owner("loud")), memory.hold(Owner("loud")), memory.hold(Owner("quiet"))
    slow.take(470)
    await large.enter_lane(PATIENCE)
    large.take(130)
    with pytest.raises(Busy, match="owner loud has as much"):
        await large.wait_for(1, SOON)
    await quiet.wait_for(400, PATIENCE)
