"""How many connections there may be, from whom, and which are closed first."""

from collections import Counter

import pytest

from quorumvault.config.limits import Limits
from quorumvault.server.http.connections import Address, Connections, Room, client_address
from quorumvault.server.telemetry.connection_refusals import HttpRefusals, Refusal


class One:
    """A connection that is closed at once."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.unsent_since: float | None = None
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True

    def check(self, now: float) -> None:
        self.checked = now


class Counted(HttpRefusals):
    """Counts refusals without logging them."""

    def __init__(self) -> None:
        self.counts: Counter[Refusal] = Counter()

    def add(self, refusal: Refusal) -> None:
        self.counts[refusal] += 1


@pytest.fixture
def refusals() -> Counted:
    return Counted()


@pytest.fixture
def connections(refusals: Counted) -> Connections:
    """Two of the 20 are reserved for health checks; an address that is limited to a share has 3."""
    return Connections(Limits(connections=20, connections_per_address=3), refusals)


def admitted(
    connections: Connections, count: int, address: Address = None, room: Room = Room.ALL, busy: bool = True
) -> list[One]:
    made = [One() for _ in range(count)]
    for one in made:
        assert connections.admit(one, address) is room
        if busy:
            connections.begin(one)
    return made


@pytest.mark.parametrize(
    ("peername", "address"),
    [
        (("10.0.0.1", 1234), "10.0.0.1"),
        (("2001:db8:1:2:3:4:5:6", 1234, 0, 0), bytes.fromhex("20010db800010002")),
        (("fe80::1%eth0", 1234, 0, 2), bytes.fromhex("fe80000000000000")),
        (("::ffff:10.0.0.1", 1234, 0, 0), "10.0.0.1"),
        ("", None),
        (None, None),
    ],
)
def test_who_a_client_is(peername: object, address: Address) -> None:
    assert client_address(peername) == address


def test_idle_ones_go_first_the_oldest_before_the_others(connections: Connections) -> None:
    busy, idle = admitted(connections, 8), admitted(connections, 10, busy=False)
    connections.rest(busy[0])
    for going in [*idle, busy[0]]:
        assert not going.aborted
        admitted(connections, 1)
        assert going.aborted
    assert not any(one.aborted for one in busy[1:])
    assert len(connections) == 18


def test_one_that_reads_its_answer_is_not_idle(connections: Connections) -> None:
    first, second, *_ = admitted(connections, 18, busy=False)
    first.unsent_since = 1.0
    admitted(connections, 1)
    assert (first.aborted, second.aborted) == (False, True)


def test_some_are_kept_for_questions_about_health(connections: Connections, refusals: Counted) -> None:
    admitted(connections, 18)
    first, second = admitted(connections, 2, room=Room.HEALTH, busy=False)
    admitted(connections, 1, room=Room.HEALTH)
    assert (first.aborted, second.aborted) == (True, False)
    second.unsent_since = 5.0
    admitted(connections, 1, room=Room.HEALTH)
    assert second.aborted
    assert connections.admit(One(), None) is Room.NONE
    assert (len(connections), refusals.counts) == (20, {Refusal.NO_ROOM: 5, Refusal.CLOSED_FOR_ROOM: 2})


def test_the_longest_unread_answer_goes_before_a_question_about_health_is_refused(connections: Connections) -> None:
    admitted(connections, 18)
    first, second = admitted(connections, 2, room=Room.HEALTH)
    first.unsent_since, second.unsent_since = 7.0, 6.0
    admitted(connections, 1, room=Room.HEALTH)
    assert (first.aborted, second.aborted) == (False, True)


def test_an_address_that_has_its_share_gives_up_one_of_its_own(connections: Connections) -> None:
    (other,) = admitted(connections, 1, "10.0.0.2", busy=False)
    own = admitted(connections, 3, "10.0.0.1", busy=False)
    admitted(connections, 3, "10.0.0.1")
    assert all(one.aborted for one in own)
    assert not other.aborted
    admitted(connections, 1, "10.0.0.1", room=Room.HEALTH)
    admitted(connections, 2, "10.0.0.2")


def test_a_unix_socket_has_no_share(connections: Connections) -> None:
    admitted(connections, 18)


def test_who_has_left_makes_room_once(connections: Connections) -> None:
    one, *_ = admitted(connections, 3, "10.0.0.1")
    connections.leave(one)
    connections.leave(one)
    connections.rest(one)
    admitted(connections, 1, "10.0.0.1")
    assert len(connections) == 3
    admitted(connections, 1, "10.0.0.1", room=Room.HEALTH)


def test_all_are_checked() -> None:
    connections = Connections(Limits(connections=10), Counted())
    made = [*admitted(connections, 9), *admitted(connections, 1, room=Room.HEALTH)]
    connections.check(4.0)
    assert [one.checked for one in made] == [4.0] * 10


def test_when_none_is_idle_the_longest_unread_answer_makes_room_and_no_request_under_way(connections: Connections) -> None:
    busy, answered = admitted(connections, 16), admitted(connections, 2, busy=False)
    busy[0].unsent_since = 1.0  # the rest of its answer is still unsent
    answered[0].unsent_since, answered[1].unsent_since = 3.0, 2.0
    admitted(connections, 1)
    assert [one.aborted for one in answered] == [False, True]
    admitted(connections, 1)
    assert [one.aborted for one in answered] == [True, True]
    assert connections.admit(One(), None) is Room.HEALTH
    assert not any(one.aborted for one in busy)
