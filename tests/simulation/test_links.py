"""TCP in the simulator, and how real links have to behave over it."""

import asyncio
from random import Random

import pytest

from tests.simulation.links import KINDS, linking
from tests.simulation.network import Cut
from tests.simulation.streams import End, Loop, StreamNetwork
from tests.simulation.timeline import Timeline


class Diary(asyncio.Protocol):
    """Records what happens to its end of the connection."""

    def __init__(self) -> None:
        self.read = b""
        self.ended: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, End)
        self.end = transport

    def data_received(self, data: bytes) -> None:
        self.read += data

    def eof_received(self) -> None:
        self.ended.append("end")

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.append("lost" if error is None else type(error).__name__)


class Hosts:
    """A process on each of n1 and n2, and what their connections recorded."""

    def __init__(self, seed: int = 1) -> None:
        self.timeline = Timeline()
        self.network = StreamNetwork(self.timeline, Random(seed))
        self.n1, self.n2 = Loop(self.network, "n1"), Loop(self.network, "n2")  # type: ignore[abstract]
        self.mine, self.theirs = Diary(), Diary()
        self.failures: list[str] = []
        self.network.listen(self.n2, lambda: self.theirs)

    def dial(self, patience: float = 1.0) -> None:
        async def dial() -> None:
            try:
                async with asyncio.timeout(patience):
                    await asyncio.get_running_loop().create_connection(lambda: self.mine, "n2", 1)
            except OSError as error:
                self.failures.append(type(error).__name__)

        self.n1.call_soon(lambda: self.n1.create_task(dial()))
        self.timeline.run(self.timeline.now + patience + 1)

    def write(self, diary: Diary, *pieces: bytes) -> None:
        for piece in pieces:
            diary.end.loop.call_soon(diary.end.write, piece)
        self.timeline.run(self.timeline.now + 2)


@pytest.mark.parametrize("seed", range(5))
def test_bytes_come_in_their_order_though_some_are_lost_on_the_way(seed: int) -> None:
    hosts = Hosts(seed)
    hosts.network.misbehave()
    hosts.dial(5.0)
    hosts.write(hosts.mine, *(b"%03d" % number for number in range(100)))
    assert hosts.theirs.read == b"".join(b"%03d" % number for number in range(100))


def test_what_is_sent_over_a_cut_comes_when_it_is_mended() -> None:
    hosts = Hosts()
    hosts.dial()
    mend = hosts.network.cut([("n1", "n2")], Cut.DROPS)
    hosts.write(hosts.mine, b"one")
    hosts.write(hosts.theirs, b"two")
    assert (hosts.theirs.read, hosts.mine.read) == (b"", b"two")
    mend()
    hosts.write(hosts.mine, b" more")
    assert hosts.theirs.read == b"one more"


def test_a_host_without_power_tells_nobody_and_answers_with_a_reset_when_it_has_some() -> None:
    hosts = Hosts()
    hosts.dial()
    hosts.network.dark.add("n2")
    hosts.n2.alive = False
    hosts.network.died(hosts.n2, silently=True)
    hosts.write(hosts.mine, b"is anybody there")
    assert hosts.mine.ended == []
    hosts.dial()
    assert hosts.failures == ["TimeoutError"]
    hosts.network.dark.clear()
    hosts.dial()
    assert hosts.failures == ["TimeoutError", "ConnectionRefusedError"]
    hosts.write(hosts.mine, b"now")
    assert hosts.mine.ended == ["ConnectionResetError"]


def test_a_connection_that_a_firewall_forgot_is_half_open() -> None:
    hosts = Hosts()
    hosts.dial()
    hosts.mine.end.has_path = False
    hosts.write(hosts.mine, b"lost")
    hosts.write(hosts.theirs, b"heard")
    assert (hosts.theirs.read, hosts.mine.read) == (b"", b"heard")
    hosts.n1.call_soon(hosts.mine.end.abort)
    hosts.timeline.run(hosts.timeline.now + 1)
    assert (hosts.mine.ended, hosts.theirs.ended) == (["lost"], [])


def test_a_writer_is_told_to_pause_while_the_other_side_reads_nothing() -> None:
    hosts, told = Hosts(), []
    hosts.network.window, hosts.network.high = 10, 20
    hosts.dial()
    hosts.mine.pause_writing = lambda: told.append("pause")  # type: ignore[method-assign]
    hosts.mine.resume_writing = lambda: told.append("go on")  # type: ignore[method-assign]
    hosts.n2.stopped = True
    hosts.write(hosts.mine, b"x" * 25)
    assert told == []
    hosts.write(hosts.mine, b"y" * 25)
    assert told == ["pause"]
    hosts.n2.go_on()
    hosts.write(hosts.mine)
    assert told == ["pause", "go on"]
    assert hosts.theirs.read == b"x" * 25 + b"y" * 25


def test_all_that_may_happen_to_links_does() -> None:
    assert {fault.kind for seed in range(1, 13) for fault in linking(seed).faults} > KINDS.keys()
