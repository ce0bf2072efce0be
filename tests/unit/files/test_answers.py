"""Remembered answers: the first thread that needs an answer asks for it, and all are forgotten when the epoch changes."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from quorumvault.crypto.tokens import format_token
from quorumvault.errors import EpochMoved, NoQuorum
from quorumvault.files.answers import CellAnswer, CellValue, TextAnswers


class Vault:
    """A Lookup that records what it is asked, calls ``before`` each time, and returns tokens of ``epoch``."""

    def __init__(self) -> None:
        self.asked: list[list[CellValue]] = []
        self.before: Callable[[], None] = lambda: None
        self.epoch = 1
        self.unavailable: list[CellValue] = []

    def __call__(self, values: Sequence[CellValue]) -> list[CellAnswer]:
        self.asked.append(list(values))
        self.before()
        digests = [str(value).encode().rjust(20, b"\0")[-20:] for value in values]
        return [
            CellAnswer("unavailable") if value in self.unavailable else CellAnswer("ok", format_token(self.epoch, digest))
            for value, digest in zip(values, digests, strict=True)
        ]


@pytest.fixture
def vault() -> Vault:
    return Vault()


@pytest.fixture
def remembered(vault: Vault, tmp_path: Path) -> Iterator[TextAnswers]:
    with contextlib.closing(TextAnswers(tmp_path, vault, one_epoch=True)) as made:
        yield made


def test_each_value_is_asked_about_once(vault: Vault, remembered: TextAnswers) -> None:
    first = remembered(["a", "b", "a", "\0", "ö"])
    assert first[0] == first[2] != first[1]
    assert remembered(["b", "\0", "c", "ö"])[:2] == [first[1], first[3]]
    remembered(["1"])
    remembered([msgspec.Raw(b"1"), "1"])
    assert vault.asked == [["a", "b", "\0", "ö"], ["c"], ["1"], [msgspec.Raw(b"1")]]


def test_values_come_back_as_they_were(tmp_path: Path) -> None:
    answers = [CellAnswer("ok", msgspec.Raw(b"1e2")), CellAnswer("ok", "text"), CellAnswer("not_found"), CellAnswer("collision")]
    with contextlib.closing(TextAnswers(tmp_path, lambda values: answers, one_epoch=False)) as made:
        assert [made(["a", "b", "c", "d"]) for _ in range(2)] == [answers] * 2


@pytest.mark.parametrize("failure", [None, NoQuorum("n2: down; n3: down")])
def test_a_value_that_a_thread_is_asking_about_is_waited_for(
    vault: Vault, remembered: TextAnswers, failure: Exception | None
) -> None:
    """A failure reaches every thread that waited, and is not remembered."""
    asked, go = threading.Event(), threading.Event()

    def before() -> None:
        asked.set()
        assert go.wait(20)
        if failure is not None:
            raise failure

    vault.before = before
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(remembered, ["a", "b"])
        assert asked.wait(20)
        vault.before = go.set  # when the second thread asks about its own value, the first one goes on
        second = pool.submit(remembered, ["b", "c"])
        assert [each.exception(20) for each in (first, second)] == [failure] * 2
        if failure is None:
            assert first.result()[1] == second.result()[0]
    assert [answer.status for answer in remembered(["a", "b", "c"])] == ["ok"] * 3
    assert vault.asked == [["a", "b"], ["c"]] + ([] if failure is None else [["a", "b"]])


def test_what_could_not_be_told_is_asked_for_again(vault: Vault, remembered: TextAnswers) -> None:
    vault.unavailable = ["a"]
    assert remembered(["a", "b"])[0].status == "unavailable"
    vault.unavailable = []
    assert remembered(["a", "b"])[0].status == "ok"
    assert vault.asked == [["a", "b"], ["a"]]


def test_tokens_of_an_older_epoch_are_forgotten(vault: Vault, remembered: TextAnswers) -> None:
    remembered(["a", "b"])
    vault.epoch = 2
    assert remembered(["a"])[0].replacement == format_token(1, b"a".rjust(20, b"\0"))
    with pytest.raises(EpochMoved):
        remembered(["a", "c"])
    assert {str(answer.replacement)[:5] for answer in remembered(["a", "b", "c"])} == {"qv_2_"}
    vault.epoch = 1
    with pytest.raises(EpochMoved):
        remembered(["d"])
    remembered.forget()
    assert remembered(["d"])[0].status == "ok"
