"""What a node remembers of other disks, and how it uses what others remember of its own disk."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from quorumvault.errors import StorageFailed, StoreCorrupt
from quorumvault.protocol.peer import NoReply
from quorumvault.protocol.rollback_marks import Mark
from quorumvault.protocol.views import View, successor
from quorumvault.server.healing.rollback_marks import SOON, RollbackMarks
from quorumvault.server.peers.facts import NodeFacts, decode_facts, encode
from quorumvault.server.replica.replica import OwnWork, Replica
from quorumvault.server.storage import layout
from quorumvault.server.storage.data_directory import PUT_BACK
from quorumvault.server.storage.memory import MemoryStore
from quorumvault.server.storage.store import Store
from tests.rigs import trio
from tests.rigs.faulty_store import FaultyStore
from tests.rigs.links import facts_of
from tests.rigs.trio import DISKS, VIEW

ME, ONE, THREE = DISKS["n2"], DISKS["n1"], DISKS["n3"]
FRESH = b"d" * 16


def make_replica(store: Store, *, reserve: bool = True) -> Replica:
    return trio.make_replica(store, "n2", incarnation=4, has_reserve=lambda: reserve)


@dataclass
class Rig:
    """The rollback marks of n2. A test decides when ``timers`` are due; if ``busy``, too much waits for n2's disk."""

    store: MemoryStore = field(default_factory=MemoryStore)
    view: View | None = VIEW
    has_disk: bool = True
    busy: bool = False
    whole: bool = True
    timers: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    lost_with: dict[bytes, Mark] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store.write({layout.SEQUENCE_KEY: layout.encode_sequence(600)})
        self.start()

    def start(self) -> None:
        """Start n2's process."""
        self.replica = make_replica(self.store)
        self.marks = RollbackMarks(
            lambda: self.replica if self.has_disk else None,
            lambda: self if self.has_disk else None,
            lambda: self.view,
            lambda seconds, what: self.timers.append((seconds, what)),
            self.given_up.append,
            lambda: self.whole,
            self.lost_with,
        )

    def submit(self, request: Any, on_reply: Callable[[Any], None]) -> None:
        assert isinstance(request, OwnWork)
        on_reply(NoReply(sent=False) if self.busy else self.replica.handle([request])[0])

    def wait(self) -> None:
        """Run all timers that are due by now."""
        due, self.timers = self.timers, []
        for seconds, what in due:
            assert seconds == SOON
            what()


def told(node: str = "n1", sequence: int = 0, marks: dict[bytes, Mark] | None = None, **changes: Any) -> NodeFacts:
    return facts_of(node, disk=DISKS[node], view=VIEW, incarnation=1, sequence=sequence, marks=marks or {}, **changes)


def test_it_remembers_across_a_restart_what_was_acknowledged_and_what_it_was_told() -> None:
    rig = Rig()
    rig.marks.acknowledged(ONE, Mark(3, 70))
    rig.marks.acknowledged(ONE, Mark(3, 69))
    rig.marks.heard(told("n3", sequence=8, marks={ONE: Mark(2, 90)}))
    assert rig.marks.known == {ONE: Mark(3, 90), THREE: Mark(1, 8)}
    rig.wait()
    rig.start()
    assert rig.marks.known == {ONE: Mark(3, 90), THREE: Mark(1, 8)}


def test_many_acknowledgements_are_one_write_and_the_same_again_is_none() -> None:
    rig = Rig()
    for sequence in range(100):
        rig.marks.acknowledged(ONE, Mark(1, sequence))
    assert len(rig.timers) == 1
    rig.wait()
    rig.marks.acknowledged(ONE, Mark(1, 99))
    rig.marks.heard(told(sequence=99))
    assert not rig.timers


def test_to_remember_is_no_write_that_others_would_have_to_remember() -> None:
    """Otherwise three idle nodes would tell each other of their writes forever."""
    rig = Rig()
    rig.marks.acknowledged(ONE, Mark(1, 5))
    rig.wait()
    assert rig.replica.sequence == 600


@pytest.mark.parametrize("full", [False, True])
def test_a_disk_with_too_much_to_do_or_without_room_is_asked_again(full: bool) -> None:
    rig = Rig(busy=not full)
    rig.replica = make_replica(rig.store, reserve=not full)
    rig.marks.acknowledged(ONE, Mark(1, 5))
    rig.wait()
    rig.busy, rig.replica = False, make_replica(rig.store)
    rig.wait()
    assert make_replica(rig.store).remembered == {ONE: Mark(1, 5)}


@pytest.mark.parametrize(
    ("remembered", "forgot"),
    [(Mark(4, 600), False), (Mark(3, 600), False), (Mark(4, 601), True), (Mark(3, 601), True), (Mark(5, 600), True)],
)
def test_a_disk_of_which_a_peer_remembers_more_is_given_up_once(remembered: Mark, forgot: bool) -> None:
    rig = Rig()
    for _ in range(2):
        rig.marks.heard(told(marks={ME: remembered}))
    assert len(rig.given_up) == forgot
    for why in rig.given_up:
        assert why.startswith(PUT_BACK)
        assert "n1 remembers" in why


def test_what_is_remembered_of_a_disk_that_this_node_has_no_more_means_nothing() -> None:
    rig = Rig(has_disk=False)
    rig.marks.heard(told(marks={ME: Mark(9, 9)}))
    rig.marks.heard(told(marks={b"x" * 16: Mark(9, 9)}))
    assert not rig.given_up


def test_disks_that_are_in_no_view_are_not_remembered_and_those_that_left_it_are_forgotten() -> None:
    rig = Rig()
    rig.marks.heard(told(marks={b"x" * 16: Mark(9, 9), ME: Mark(1, 1)}))
    assert set(rig.marks.known) == {ONE}
    rig.wait()
    rig.view = successor(VIEW, "n1", FRESH)
    rig.marks.acknowledged(FRESH, Mark(1, 1))
    rig.wait()
    assert (set(rig.marks.known), make_replica(rig.store).remembered) == ({FRESH}, {FRESH: Mark(1, 1)})


def test_while_a_disk_of_the_view_is_not_active_one_that_left_is_remembered() -> None:
    """The disk may still be needed, and must be distinguishable from an older copy of itself (rule: donors have no voice)."""
    rig = Rig(whole=False)
    rig.marks.heard(told())
    rig.view = successor(VIEW, "n1", FRESH)
    rig.marks.acknowledged(FRESH, Mark(1, 1))
    rig.wait()
    assert make_replica(rig.store).remembered.keys() == {ONE, FRESH}
    for number in range(9):
        rig.marks.acknowledged(bytes([number]) * 16, Mark(1, 1))
    rig.wait()
    assert make_replica(rig.store).remembered.keys() == {FRESH}  # too many disks to tell which left last


def test_a_node_that_knows_no_view_yet_still_hears_that_its_disk_was_put_back() -> None:
    rig = Rig(view=None)
    rig.marks.heard(told(marks={ME: Mark(9, 9)}))
    assert len(rig.given_up) == 1


def test_a_new_disk_gets_what_is_remembered_before_it_votes() -> None:
    rig = Rig(has_disk=False)
    rig.marks.acknowledged(ONE, Mark(3, 70))
    rig.wait()
    assert rig.replica.remembered == {}
    replica = make_replica(rig.store)
    replica.activate(VIEW, dict(rig.marks.known))
    assert make_replica(rig.store).remembered == {ONE: Mark(3, 70)}


def test_a_disk_without_room_leaves_it_in_memory() -> None:
    store = MemoryStore()
    full = make_replica(store, reserve=False)
    assert not full.remember({ONE: Mark(1, 1)})
    assert not full.activate(VIEW, {ONE: Mark(1, 1)})
    assert list(store.scan(layout.MARK)) == []


def test_a_view_that_is_entered_counts_as_a_write() -> None:
    """An earlier copy of a disk may be in an older view, and must not vote there (rule: a lost disk gets a new identity)."""
    replica = make_replica(MemoryStore())
    replica.enter(successor(VIEW, "n1", FRESH))
    assert replica.sequence == 1


def test_no_write_is_told_of_before_it_is_durable() -> None:
    store = FaultyStore(MemoryStore())
    replica = make_replica(store)
    store.fail_write = True
    with pytest.raises(StorageFailed):
        replica.enter(VIEW)
    assert replica.sequence == 0


def test_marks_that_cannot_be_read_are_a_store_that_cannot_be_trusted() -> None:
    store = MemoryStore()
    store.write({layout.mark_key(ONE): b"short"})
    with pytest.raises(StoreCorrupt, match="remembers of other disks"):
        make_replica(store)


def test_they_are_facts_and_a_node_of_an_earlier_version_says_none() -> None:
    facts = told(sequence=7, marks={ME: Mark(1, 2)})
    assert decode_facts(encode(facts)) == facts
    assert isinstance(decode_facts(encode(facts)).marks[ME], Mark)


def test_a_node_that_has_lost_its_disk_knows_what_that_remembered() -> None:
    """Proves: rollback marks."""
    rig = Rig(has_disk=False, lost_with={ONE: Mark(2, 9)})
    assert rig.marks.known == {ONE: Mark(2, 9)}
    rig.marks.acknowledged(ONE, Mark(2, 10))
    assert (rig.marks.known, rig.lost_with) == ({ONE: Mark(2, 10)}, {ONE: Mark(2, 9)})
