"""Which of two processes keeps a name that both claim at one node."""

from dataclasses import dataclass, field

from quorumvault.server.peers.claims import Claims
from quorumvault.server.peers.facts import NodeFacts
from tests.rigs.links import facts_of


@dataclass(eq=False)
class Claimant:
    """A connection whose other end answers pings when the test says so."""

    remote: str = "10.0.0.1"
    pings: int = 0
    pongs: int = 0
    heard: list[str] = field(default_factory=list)

    def ping(self) -> int:
        self.pings += 1
        return self.pings

    def welcome(self, facts: NodeFacts) -> None:
        self.heard.append("welcome")

    def turn_away(self, reason: str) -> None:
        self.heard.append(reason)


def facts(boot: bytes, node: str = "n1") -> NodeFacts:
    return facts_of(node, boot=boot, disk=bytes.fromhex("0123456789abcdef") * 2)


def answer(claims: Claims, claimant: Claimant) -> None:
    claimant.pongs += 1
    claims.answered(claimant)


def held(*boots: bytes) -> tuple[Claims, list[Claimant]]:
    """The claims at n2. The first process holds the name n1; each boot has one connection."""
    claims, claimants = Claims("n2"), [Claimant() for _ in boots]
    for boot, claimant in zip(boots, claimants, strict=True):
        claims.claim(claimant, facts(boot))
    return claims, claimants


def challenged(claims: Claims, boot: bytes = b"b", remote: str = "10.0.0.9") -> Claimant:
    """Another process of n1 claims its name."""
    challenger = Claimant(remote)
    claims.claim(challenger, facts(boot))
    return challenger


def test_a_free_name_is_had_at_once_and_other_names_are_other_claims() -> None:
    claims, (first,) = held(b"a")
    other = Claimant()
    claims.claim(other, facts(b"b", node="n3"))
    assert first.heard == other.heard == ["welcome"]
    assert first.pings == 0


def test_a_process_may_have_several_connections() -> None:
    claims, (first, second) = held(b"a", b"a")
    assert first.heard == second.heard == ["welcome"]
    claims.release(first)
    challenger = challenged(claims)
    assert challenger.heard == []  # the second connection still holds the name
    claims.release(second)
    assert challenger.heard == ["welcome"]


def test_a_holder_that_lives_keeps_its_name_and_the_other_hears_where_it_is() -> None:
    claims, (holder,) = held(b"a")
    challenger = challenged(claims)
    assert (holder.pings, challenger.heard) == (1, [])
    answer(claims, holder)
    assert challenger.heard == ["n1 runs elsewhere already: its disk 01234567 is live at 10.0.0.1, seen by n2; stop one of them"]
    assert holder.heard == ["welcome"]
    claims.release(challenger)
    claims.release(holder)
    assert challenger.heard == challenger.heard[:1]


def test_a_holder_that_is_gone_leaves_its_name_to_who_came_first_of_those_who_wait() -> None:
    claims, (holder,) = held(b"a")
    second, third, fourth = (challenged(claims, boot) for boot in (b"b", b"c", b"b"))
    claims.release(holder)
    assert [claimant.heard for claimant in (second, third, fourth)] == [["welcome"], [], ["welcome"]]
    answer(claims, fourth)
    assert "runs elsewhere already" in third.heard[0]


def test_a_pong_to_an_earlier_ping_proves_nothing() -> None:
    claims, (holder,) = held(b"a")
    holder.ping()
    challenger = challenged(claims)
    answer(claims, holder)
    assert challenger.heard == []
    answer(claims, holder)
    assert len(challenger.heard) == 1


def test_any_connection_of_the_holder_proves_that_it_lives_one_that_comes_later_too() -> None:
    claims, (first,) = held(b"a")
    challenger = challenged(claims)
    later = challenged(claims, b"a")
    claims.release(first)
    assert (later.heard, challenger.heard) == (["welcome"], [])
    answer(claims, later)
    assert "runs elsewhere already" in challenger.heard[0]


def test_a_challenger_that_goes_away_is_forgotten() -> None:
    claims, (holder,) = held(b"a")
    challenger = challenged(claims)
    claims.release(challenger)
    answer(claims, holder)
    claims.release(holder)
    assert challenger.heard == []


def test_releases_that_older_nodes_run_have_no_nonce_and_take_over_from_themselves() -> None:
    _, (older, newer) = held(b"", b"")
    assert older.heard == newer.heard == ["welcome"]
