"""What is logged about failed connections: enough to know why they failed, and never more than a disk can bear."""

from quorumvault.server.peers.refusals import Refusals


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_host_with_the_same_reason_is_told_of_once_until_it_was_in_order() -> None:
    told: list[str] = []
    refusals = Refusals(Clock(), told.append)
    for _ in range(3):
        refusals.add("10.0.0.1", "no TLS")
    refusals.add("10.0.0.2", "no TLS")
    refusals.add("10.0.0.1", "expired")
    assert told == [
        "a connection from 10.0.0.1 came to nothing: no TLS",
        "a connection from 10.0.0.2 came to nothing: no TLS",
        "a connection from 10.0.0.1 came to nothing: expired",
    ]
    refusals.forget("10.0.0.1")
    refusals.forget("10.0.0.9")
    refusals.add("10.0.0.1", "expired")
    assert len(told) == 4


def test_however_many_reasons_and_hosts_there_are_a_minute_has_thirty_lines() -> None:
    told: list[str] = []
    clock = Clock()
    refusals = Refusals(clock, told.append)
    for number in range(10_000):
        refusals.add("10.0.0.1", f"reason {number % 2}")
        refusals.add(f"10.1.{number % 251}.{number // 251}", "no TLS")
    assert len(told) == 30
    clock.now += 61
    refusals.add("10.0.0.3", "expired")
    assert told[-1] == "a connection from 10.0.0.3 came to nothing: expired (19970 others are left out before this one)"
    refusals.add("10.0.0.4", "expired")
    assert told[-1].endswith("10.0.0.4 came to nothing: expired")
    assert len(refusals._last) <= 256
