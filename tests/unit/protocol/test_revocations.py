"""What a process knows of revoked keys grows, in whatever order answers come, and counts for a while from its questions on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.errors import Refused
from quorumvault.protocol.messages import RevokeKeys
from quorumvault.protocol.revocations import (
    KNOWN_FOR,
    MOST_REVOKED,
    Knowledge,
    Revoked,
    RevokedRead,
    fingerprint_of,
    read_revoked,
    revoke,
)
from quorumvault.protocol.steps import Steps

NOTHING = frozenset[str]()


def driven(steps: Steps[frozenset[str]], *decisions: object) -> tuple[list[RevokeKeys], frozenset[str]]:
    """The writes of an operation whose rounds are decided so, and its result."""
    asked = [next(steps)]
    try:
        for decision in decisions:
            ask = steps.send(decision)
            asked.append(ask)
    except StopIteration as end:
        return [ask.request for ask in asked if isinstance(ask.request, RevokeKeys)], end.value
    raise AssertionError("it goes on")


@given(st.lists(st.tuples(st.frozensets(st.sampled_from("abcd")), st.floats(0, 100))))
def test_knowledge_only_grows_and_counts_from_the_latest_question_on(answers: list[tuple[frozenset[str], float]]) -> None:
    """Proves: no key without knowledge."""
    knowledge = Knowledge()
    assert not knowledge.counts(0.0)
    for ids, began in answers:
        before = knowledge.ids
        assert knowledge.learn(ids, began) == ids - before
        assert knowledge.ids == before | ids
    if answers:
        latest = max(began for _, began in answers)
        assert knowledge.counts(latest)
        assert not knowledge.counts(latest + KNOWN_FOR + 1e-6)


def test_what_one_disk_lacks_is_written_to_two_before_it_is_used() -> None:
    """Proves: a revoked key stays revoked."""
    read = RevokedRead(frozenset({"a", "b"}), unsettled=frozenset({"b"}))
    writes, ids = driven(read_revoked(frozenset({"a"})), read, Revoked())
    assert ([write.ids for write in writes], ids) == ([["b"]], frozenset({"a", "b"}))


def test_a_key_that_is_revoked_already_is_not_written_again() -> None:
    read = RevokedRead(frozenset({"a"}), unsettled=NOTHING)
    assert driven(revoke(frozenset({"a"}), NOTHING), read) == ([], frozenset({"a"}))


def test_there_is_a_most_and_what_is_revoked_stays_so() -> None:
    many = frozenset(map(str, range(MOST_REVOKED)))
    read = RevokedRead(many, unsettled=NOTHING)
    with pytest.raises(Refused, match="10,000 is the most"):
        driven(revoke(frozenset({"one-more"}), NOTHING), read)
    assert driven(revoke(frozenset({"7"}), NOTHING), read) == ([], many)


def test_sets_have_the_same_fingerprint_only_if_they_are_the_same() -> None:
    sets = [NOTHING, frozenset({"a"}), frozenset({"a", "b"}), frozenset({"ab"})]
    assert len({fingerprint_of(ids) for ids in sets}) == len(sets)
    assert fingerprint_of(frozenset(["b", "a"])) == fingerprint_of(frozenset({"a", "b"}))
