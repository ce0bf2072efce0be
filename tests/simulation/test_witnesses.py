"""A "not found" needs two disks that said so in one round. A value that one replica tells alone has to be on two disks."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest

from chaos.testbed.history import Action, Complete, Invoke, Outcome
from chaos.testbed.violation import Violation
from quorumvault.crypto.tokens import DIGEST_BYTES, format_token
from quorumvault.model import FIRST_EPOCH, NODE_NAMES, Version
from quorumvault.protocol import records
from quorumvault.protocol.buckets import BUCKETS
from quorumvault.protocol.messages import Get, Holds, OtherView, RoundId
from quorumvault.protocol.views import DISK_BYTES, successor
from quorumvault.server.storage import layout
from tests.rigs.undone import UNDONE
from tests.rigs.undone.mutant import applied
from tests.simulation.clients import OWNERS, Client, canonical
from tests.simulation.nodes import DISKS, VIEW, Process
from tests.simulation.witnesses import Witnesses
from tests.simulation.world import World, scenario

DIGEST = bytes(range(DIGEST_BYTES))
TOKEN = format_token(1, DIGEST)
#: What a disk may say of the key in question: it is absent, it is there, it cannot be read.
Records = tuple[list[bytes | None], list[int]]
ABSENT: Records = ([None], [])
THERE: Records = ([b"record"], [])
UNREADABLE: Records = ([None], [0])
Said = tuple[str, Records]


class Asker:
    """Operation 0, which holds its own rounds; their decisions are ignored."""

    def __init__(self) -> None:
        self.branches: Counter[str] = Counter()
        self.witnesses = Witnesses(self.branches)
        self._rounds = 0

    def hold(self, said: Iterable[Said], *, ended: bool = False) -> None:
        """Holds a round with these replies in their order. ``ended``: they arrive after the operation has its answer."""
        self._rounds += 1
        request = Get(RoundId(b"disk", b"boot", self._rounds), VIEW.id, b"owner", [1], [DIGEST])
        hearers = []

        async def work() -> None:
            hearers.append(self.witnesses.asked(request, lambda reply: None))

        assert list(self.witnesses.steps_of(0, work())) == []
        if ended:
            self.witnesses.close(0)
        for node, (found, unknown) in said:
            hearers[0](Holds(request.round, VIEW.id, DISKS[node], found, unknown))

    def tell(self, answer: str = "not_found") -> None:
        self.witnesses.close(0)
        self.witnesses.check(Invoke(0, Action.DETOKENIZE, "acme", "n1", (TOKEN,)), Complete(0, Outcome.OK, (answer,)))


@pytest.mark.parametrize("others", [THERE, UNREADABLE])
def test_two_disks_are_enough(others: tuple[list[bytes | None], list[int]]) -> None:
    asker = Asker()
    asker.hold([("n1", others), ("n2", ABSENT), ("n3", ABSENT)])
    asker.tell()


@pytest.mark.parametrize(
    "said",
    [[], [("n1", ABSENT)], [("n1", ABSENT), ("n1", ABSENT)], [("n1", ABSENT), ("n2", THERE), ("n3", UNREADABLE)]],
    ids=["silence", "one", "one that says it twice", "one of three"],
)
def test_fewer_are_not(said: list[Said]) -> None:
    asker = Asker()
    asker.hold(said)
    with pytest.raises(Violation, match="witnesses: operation 0"):
        asker.tell()


def test_the_last_round_counts_and_what_was_said_in_it_before_the_answer() -> None:
    rounds = Asker()
    rounds.hold([("n1", ABSENT), ("n2", ABSENT)])
    rounds.hold([("n1", ABSENT)])
    with pytest.raises(Violation):
        rounds.tell()
    late = Asker()
    late.hold([(node, ABSENT) for node in NODE_NAMES], ended=True)
    with pytest.raises(Violation):
        late.witnesses.check(Invoke(0, Action.DETOKENIZE, "acme", "n1", (TOKEN,)), Complete(0, Outcome.OK, ("not_found",)))


@pytest.mark.parametrize("answer", ["=1", "unavailable", "collision"])
def test_other_answers_need_no_witness(answer: str) -> None:
    Asker().tell(answer)


def test_a_refused_view_is_counted() -> None:
    asker = Asker()
    request = Get(RoundId(b"disk", b"boot", 1), VIEW.id, b"owner", [1], [DIGEST])
    asker.witnesses.asked(request, lambda reply: None)(OtherView(request.round, VIEW.id, DISKS["n1"], VIEW))
    assert asker.branches == {"view refusal": 1}


class Believer:
    """A world without clients or faults, in which n1 considers all its records settled."""

    def __init__(self) -> None:
        self.world = World(replace(scenario(1), calls=(), faults=()))
        self.owner = OWNERS[0]
        keys = self.world.keyring.epoch_keys(self.owner, FIRST_EPOCH)
        (self._digest,) = keys.digests([canonical("=1")])
        self.value = records.header(Version(1, 1)) + keys.sealer.seal([canonical("=1")], [self._digest])[0]

    def plant(self, record: bytes, *nodes: str) -> None:
        """Puts the record on the disks of these nodes."""
        (key,) = layout.record_keys(self.owner.id, [FIRST_EPOCH], [self._digest])
        for node in nodes:
            self.world.cluster[node].disk.stored[key] = record

    def replace_disk(self, node: str) -> None:
        """Replaces the node's disk by an empty one. n1 is in the view that lists the new disk."""
        disk = b"new".ljust(DISK_BYTES, b".")
        self.world.cluster[node].lose_disk(disk)
        assert self._process.replica.identity.view is not None
        view = successor(self._process.replica.identity.view, node, disk)
        self._process.replica._become(replace(self._process.replica.identity, view=view))
        self._process.coordinator.learn(view)

    def ask(self) -> None:
        """Raises Violation if n1 tells a record alone that it must not tell alone."""
        self._process.replica.settled._whole = bytearray(b"\1" * BUCKETS)
        token = format_token(FIRST_EPOCH, self._digest)
        Client(self.world, ()).ask(Action.DETOKENIZE, self.owner, "n1", (token,))
        self.world.timeline.run()

    @property
    def _process(self) -> Process:
        process = self.world.cluster["n1"].process
        assert process is not None
        return process


def test_what_two_disks_have_may_be_told_alone() -> None:
    believer = Believer()
    believer.plant(believer.value, "n1", "n3")
    believer.ask()
    assert believer.world.branches["told alone"] == 1


def test_what_one_disk_has_may_not() -> None:
    believer = Believer()
    believer.plant(believer.value, "n1")
    with pytest.raises(Violation, match=r"settled: .* on 1 disks of the view"):
        believer.ask()


def test_a_disk_that_was_replaced_is_none_of_the_view() -> None:
    believer = Believer()
    believer.plant(believer.value, "n1", "n2")
    believer.replace_disk("n2")
    with pytest.raises(Violation, match=r"settled: .* on 1 disks of the view"):
        believer.ask()


def test_a_conflict_mark_may_not_be_told_alone() -> None:
    believer = Believer()
    believer.plant(records.CONFLICT_MARK, *NODE_NAMES)
    with applied(UNDONE["settled-marks"]), pytest.raises(Violation, match="settled: "):
        believer.ask()
