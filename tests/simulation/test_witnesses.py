"""A "not found" is believed on the word of two disks that said so in one round, and of no fewer."""

from collections import Counter
from collections.abc import Iterable

import pytest

from chaos.testbed.checkers import Violation
from chaos.testbed.history import Action, Complete, Invoke, Outcome
from quorumvault.crypto.tokens import DIGEST_BYTES, format_token
from quorumvault.model import NODE_NAMES
from quorumvault.protocol.messages import Get, Holds, OtherView, RoundId
from tests.simulation.nodes import DISKS, VIEW
from tests.simulation.witnesses import Witnesses

DIGEST = bytes(range(DIGEST_BYTES))
TOKEN = format_token(1, DIGEST)
#: What a disk may say of the one key that is asked for: it is absent, it is there, it cannot be read.
Records = tuple[list[bytes | None], list[int]]
ABSENT: Records = ([None], [])
THERE: Records = ([b"record"], [])
UNREADABLE: Records = ([None], [0])
Said = tuple[str, Records]


class Asker:
    """Operation 0, which holds rounds of its own; what they decide is not looked at."""

    def __init__(self) -> None:
        self.branches: Counter[str] = Counter()
        self.witnesses = Witnesses(self.branches)
        self._rounds = 0

    def hold(self, said: Iterable[Said], *, ended: bool = False) -> None:
        """A round, and in their order the replies to it; or ``ended``, those that come when the operation has its answer."""
        self._rounds += 1
        request = Get(RoundId(b"disk", b"boot", self._rounds), VIEW.id, b"owner", [1], [DIGEST])
        hearers = []

        async def work() -> None:
            hearers.append(self.witnesses.asked(request, lambda reply: None))

        assert list(self.witnesses.steps_of(0, work())) == []
        if ended:
            self.witnesses.close(0)
        for node, (records, unknown) in said:
            hearers[0](Holds(request.round, VIEW.id, DISKS[node], records, unknown))

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
