"""When a process may vote: what it must hear first, and in which order. tests/model/test_one_name.py shows what that ensures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from quorumvault.server.peers.link import Link
from quorumvault.server.peers.standing import Standing


@dataclass(eq=False)
class StubLink:
    node: str
    up: bool = False
    on_failure: Callable[[], None] | None = None

    def dial_now(self, on_failure: Callable[[], None]) -> None:
        self.on_failure = on_failure


class Rig:
    def __init__(self) -> None:
        self.links = {node: StubLink(node) for node in ("n2", "n3")}
        self.changes: list[bool] = []
        self.standing = Standing(cast("list[Link]", list(self.links.values())), self._note)

    def _note(self) -> None:
        self.changes.append(self.standing.established)

    def set(self, *nodes: str, up: bool) -> None:
        for node in nodes:
            self.links[node].up = up
            self.standing.link_changed(cast("Link", self.links[node]))

    def fail(self, node: str) -> None:
        on_failure = self.links[node].on_failure
        assert on_failure is not None
        on_failure()


def test_one_welcome_and_then_the_other_s() -> None:
    rig = Rig()
    rig.set("n2", up=True)
    assert not rig.standing.established
    rig.set("n3", up=True)
    assert rig.changes == [True]


def test_one_welcome_and_then_the_other_peer_cannot_be_reached() -> None:
    rig = Rig()
    rig.set("n3", up=True)
    assert rig.links["n3"].on_failure is None
    assert not rig.standing.established
    rig.fail("n2")
    assert rig.changes == [True]


def test_one_peer_lost_is_nothing_and_both_lost_is_all() -> None:
    rig = Rig()
    rig.set("n2", "n3", up=True)
    rig.set("n2", up=False)
    rig.set("n2", up=True)
    rig.set("n2", up=False)
    assert rig.changes == [True]
    rig.set("n3", up=False)
    assert rig.changes == [True, False]
    rig.set("n3", up=True)
    assert rig.changes == [True, False]  # n2 must be asked again: meanwhile it may hold the name for another process
    rig.fail("n2")
    assert rig.changes == [True, False, True]


def test_what_failed_before_the_welcome_does_not_count() -> None:
    rig = Rig()
    rig.set("n2", up=True)
    rig.set("n2", up=False)
    rig.fail("n3")
    assert rig.changes == []
    rig.set("n2", up=True)
    assert rig.changes == []


def test_who_is_told_that_its_name_is_taken_never_votes_again() -> None:
    rig = Rig()
    rig.set("n2", "n3", up=True)
    rig.standing.withdraw()
    rig.standing.withdraw()
    rig.set("n2", "n3", up=False)
    rig.set("n2", "n3", up=True)
    assert rig.changes == [True, False]


def test_peers_are_told_too_if_it_never_might_vote() -> None:
    """A process hears a peer's facts before the link counts as up, and those facts reveal a disk that was put back."""
    rig = Rig()
    rig.standing.withdraw()
    assert (rig.changes, rig.standing.withdrawn) == ([False], True)
