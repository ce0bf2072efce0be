"""A process's knowledge of revoked keys only grows, whatever the order of answers, and counts for a while after each question."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.errors import Refused
from quorumvault.protocol.messages import RevokeKeys
from quorumvault.protocol.revocations import (
    KNOWN_FOR,
    MOST_HELD,
    MOST_REVOKED,
    MOST_UNLISTED,
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
    """Run an operation whose rounds have these decisions. Return its writes and its result."""
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
    assert driven(revoke(frozenset({"a"}), NOTHING, listed=False), read) == ([], frozenset({"a"}))


@pytest.mark.parametrize(("most", "listed"), [(MOST_UNLISTED, False), (MOST_REVOKED, True)])
@pytest.mark.parametrize("over", [0, 1])
def test_there_is_a_most_and_what_is_revoked_stays_so(most: int, listed: bool, over: int) -> None:
    many = frozenset(map(str, range(most + over)))
    read = RevokedRead(many, unsettled=NOTHING)
    with pytest.raises(Refused, match=f"^{most + over:,} API keys are revoked"):
        driven(revoke(frozenset({"one-more"}), NOTHING, listed=listed), read)
    assert driven(revoke(frozenset({"7"}), NOTHING, listed=listed), read) == ([], many)


def test_ids_that_nobody_has_heard_of_leave_room_for_keys_that_there_are() -> None:
    many = frozenset(map(str, range(MOST_UNLISTED)))
    writes, ids = driven(revoke(frozenset({"leaked"}), NOTHING, listed=True), RevokedRead(many, NOTHING), Revoked())
    assert ([write.ids for write in writes], ids) == ([["leaked"]], many | {"leaked"})


def test_as_many_are_taken_as_there_is_room_for() -> None:
    many = frozenset(map(str, range(MOST_REVOKED - 2)))
    asked = frozenset({"7", "a", "b", "c"})
    writes, ids = driven(revoke(asked, NOTHING, listed=True), RevokedRead(many, NOTHING), Revoked())
    assert ([write.ids for write in writes], ids) == ([["a", "b"]], many | {"a", "b"})


@pytest.mark.parametrize(("over", "written"), [(0, [["0"]]), (1, [])])
def test_what_no_disk_would_take_keeps_nobody_from_knowing_the_rest(over: int, written: list[list[str]]) -> None:
    ids = frozenset(map(str, range(MOST_HELD + over)))
    decisions = [RevokedRead(ids, unsettled=frozenset({"0"})), Revoked()][: 1 + len(written)]
    writes, known = driven(read_revoked(NOTHING), *decisions)
    assert ([write.ids for write in writes], known) == (written, ids)


def test_sets_have_the_same_fingerprint_only_if_they_are_the_same() -> None:
    sets = [NOTHING, frozenset({"a"}), frozenset({"a", "b"}), frozenset({"ab"})]
    assert len({fingerprint_of(ids) for ids in sets}) == len(sets)
    assert fingerprint_of(frozenset(["b", "a"])) == fingerprint_of(frozenset({"a", "b"}))
