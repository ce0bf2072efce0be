"""What an error says about the tries of a client."""

from __future__ import annotations

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
