"""What an error says about a client's tries, and how it is passed from one process to another."""

import pickle

import pytest

from quorumvault import errors
from quorumvault.errors import Asked, NoQuorum


def test_tries_that_ended_alike_are_said_once_with_how_often() -> None:
    error = NoQuorum("no node answered")
    error.asked = (Asked("http://n1", "silent"), Asked("http://n2", "503 no-quorum"), *[Asked("http://n1", "silent")] * 4)
    assert str(error).startswith("no node answered [http://n1: silent (5 times); http://n2: 503 no-quorum]")


def test_only_so_many_different_tries_are_said() -> None:
    error = NoQuorum("no node answered")
    error.asked = tuple(Asked("http://n1", f"status {number}") for number in range(100))
    assert str(error).count("http://n1") == 6
    assert "status 99" in str(error)


@pytest.mark.parametrize(
    "error",
    [
        errors.NotTokenizable("item 1: a list", errors=(errors.ItemError(1, "not-tokenizable", "a list"),)),
        errors.RateLimited("so much a second", retry_after=3),
        errors.EpochAhead("ahead", active_epoch=2),
        errors.MethodNotAllowed("no", allow="GET"),
        errors.Unreachable("no node answered", outcome="unknown"),
        errors.TokensNotFound((1, 4), 10),
        errors.ConfigError("quorumvault.yaml", "node", "expected a name"),
        errors.BadArgument("url", "expected one"),
        errors.InputError("a.csv", 3, "is too long"),
        errors.UnexpectedAnswer("no node"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_a_worker_of_a_pool_raises_arrives_whole(error: errors.QuorumVaultError) -> None:
    error.asked, error.request_id, error.gave_up = (Asked("http://n1", "silent"),), "id", "the time is up"
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is type(error)
    assert (str(arrived), vars(arrived)) == (str(error), vars(error))
