"""Links are renewed one after the other, so that there is always a peer to ask."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from quorumvault.config.limits import Timeouts
from quorumvault.server.peers.renewal import Renewal


@dataclass(eq=False)
class StubLink:
    node: str
    done: list[str]
    outdated: bool = True
    up: bool = True
    asked: int = 0

    def forget_revoked(self) -> None:
        self.asked += 1

    def renew(self) -> bool:
        if not self.outdated:
            return False
        self.done.append(f"{self.node} anew")
        was, self.up = self.up, False
        return was


@dataclass
class StubTimer:
    seconds: float
    callback: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Rig:
    done: list[str] = field(default_factory=list)
    timers: list[StubTimer] = field(default_factory=list)
    forgot: int = 0

    def __post_init__(self) -> None:
        self.links = {node: StubLink(node, self.done) for node in ("n2", "n3")}
        links, timeouts = cast("Any", self.links.values()), Timeouts(round=3, handshake=4)
        self.renewal = Renewal(cast("Any", self), links, timeouts, cast("Any", self._later))

    def forget_untrusted(self) -> None:
        """Stands in for the peer server's method."""
        self.forgot += 1

    def _later(self, seconds: float, callback: Callable[[], None]) -> StubTimer:
        self.timers.append(StubTimer(seconds, callback))
        return self.timers[-1]

    def set(self, node: str, *, up: bool) -> None:
        link = self.links[node]
        link.up, link.outdated = up, link.outdated and not up
        self.renewal.link_changed(cast("Any", link))


def test_the_second_link_waits_for_the_first() -> None:
    rig = Rig()
    rig.renewal.begin()
    assert rig.done == ["n2 anew"]
    assert [rig.forgot, *(link.asked for link in rig.links.values())] == [1, 1, 1]  # revoked certificates are dropped at once
    rig.set("n2", up=False)
    assert rig.done == ["n2 anew"]
    rig.set("n2", up=True)
    assert rig.done == ["n2 anew", "n3 anew"]
    rig.set("n3", up=True)
    assert all(timer.cancelled for timer in rig.timers)
    rig.renewal.begin()
    assert rig.done == ["n2 anew", "n3 anew"]


def test_but_not_longer_than_a_reconnection_may_take() -> None:
    """An untrusted link must not go on only because another peer is gone. Proves: a node is whom its certificate names."""
    rig = Rig()
    rig.renewal.begin()
    (timer,) = rig.timers
    assert timer.seconds == 7
    timer.callback()
    assert rig.done == ["n2 anew", "n3 anew"]


def test_a_link_that_was_down_or_is_in_order_is_not_waited_for() -> None:
    rig = Rig()
    rig.links["n2"].up = False
    rig.renewal.begin()
    assert rig.done == ["n2 anew", "n3 anew"]
    other = Rig()
    other.links["n2"].outdated = False
    other.renewal.begin()
    assert other.done == ["n3 anew"]


def test_another_reload_meanwhile_goes_through_them_once_more_and_breaks_no_second_link() -> None:
    rig = Rig()
    rig.renewal.begin()
    rig.renewal.begin()
    assert rig.done == ["n2 anew"]
    rig.links["n2"].up = True
    rig.renewal.link_changed(cast("Any", rig.links["n2"]))
    assert rig.done == ["n2 anew", "n2 anew"]
    rig.set("n2", up=True)
    assert rig.done == ["n2 anew", "n2 anew", "n3 anew"]
