"""The fuzzer itself: it makes the same inputs again, and notices what it has to notice."""

import os
from pathlib import Path
from random import Random

import pytest

from tests.fuzz import campaign
from tests.fuzz.__main__ import main
from tests.fuzz.campaign import run
from tests.fuzz.canaries import KEY_PLACE, TOKEN_PLACES, VALUE, Planted
from tests.fuzz.exchange import in_pieces, pieces_of
from tests.fuzz.target import InProcess, Violation
from tests.fuzz.targets import TARGETS, made
from tests.fuzz.worker import Found, Order, input_of
from tests.rigs.reduced import reduced

SEED = 7
#: Bad inputs contain this.
BAD = b"BAD"
BAD_ONES = (3, 11)


class Numbered(InProcess):
    """Input i is its number; some inputs contain the bad word."""

    def __init__(self) -> None:
        super().__init__()
        self._made = {input_of(self, SEED, index, place_of(type(self))): index for index in range(20)}

    def make(self, rng: Random) -> bytes:
        return rng.randbytes(30)

    def check_one(self, data: bytes) -> str:
        if self._made.get(data) in BAD_ONES:
            self.go_wrong()
        return "taken"

    def go_wrong(self) -> None:
        raise KeyError("some slip")


class Crashing(Numbered):
    def go_wrong(self) -> None:
        os.abort()


class Wrong(Numbered):
    def go_wrong(self) -> None:
        raise Violation("not as it has to be: at all")


def place_of(kind: type[InProcess]) -> str:
    return f"{__name__}:{kind.__name__}"


def fed(kind: type[InProcess], count: int = 20) -> tuple[campaign.Report, list[Found]]:
    kept: list[Found] = []
    report = run(Order(place_of(kind), SEED, 0, count, None), lambda target, found: kept.append(found))
    return report, kept


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_depend_on_seed_and_number_alone(name: str) -> None:
    first, second = made(name), made(name)
    inputs = [input_of(first, SEED, index, name) for index in range(30)]
    assert [input_of(second, SEED, index, name) for index in reversed(range(30))] == inputs[::-1]
    assert len(set(inputs)) > 20
    assert [input_of(first, SEED + 1, index, name) for index in range(30)] != inputs


def test_the_long_profile_is_a_million_inputs() -> None:
    sockets = {name for name in TARGETS if made(name).over_sockets}
    assert sum(entry.inputs for entry in TARGETS.values()) == 1_000_000
    assert sum(TARGETS[name].inputs for name in sockets) >= 100_000
    assert TARGETS["arrow"].inputs + TARGETS["arrow-http"].inputs >= 300_000
    assert sum(entry.seconds for entry in TARGETS.values()) < 120


@pytest.mark.parametrize(("kind", "words"), [(Numbered, "KeyError at test_fuzzer.py"), (Wrong, "not as it has to be")])
def test_what_fails_is_kept_and_the_rest_goes_on(kind: type[InProcess], words: str) -> None:
    report, kept = fed(kind)
    assert [(found.index, found.words.startswith(words)) for found in kept] == [(index, True) for index in BAD_ONES]
    assert (report.next, report.total.inputs, report.total.outcomes) == (20, 20, {"taken": 18, "FAILED": 2})


def test_an_input_that_kills_the_process_is_known() -> None:
    report, kept = fed(Crashing)
    target = Crashing()
    assert [(found.index, found.data) for found in kept] == [
        (index, input_of(target, SEED, index, place_of(Crashing))) for index in BAD_ONES
    ]
    assert "ended with -6" in kept[0].words
    assert (report.next, report.total.outcomes["CRASHED"]) == (20, 2)


def test_inputs_are_made_smaller() -> None:
    assert reduced(b"some " * 9 + BAD + b" words" * 30, lambda data: BAD in data, 300) == BAD


def test_pieces_are_the_whole() -> None:
    rng = Random(1)
    for _ in range(200):
        raw = rng.randbytes(rng.choice((1, 2, 60)))
        assert b"".join(pieces_of(in_pieces(rng, raw))[0]) == raw
    assert pieces_of(b"#cuts 900,2 pause 5\nabcd") == ([b"ab", b"cd"], 0.005)


def test_what_is_planted_is_found() -> None:
    tokens = ["qv_1_" + f"{number:x}" * 48 for number in range(1, 5)]
    planted = Planted("qvk_abcdefgh_" + "s" * 32, tokens)
    sent = planted.filled(KEY_PLACE + b" " + TOKEN_PLACES[2])
    assert sent == b"qvk_abcdefgh_" + b"s" * 32 + b" " + tokens[2].encode()
    assert planted.found_in(b"key " + b"s" * 32)
    assert planted.found_in(b"token " + b"3" * 48)
    assert planted.found_in(f"value {VALUE} 3".encode())
    assert not planted.found_in(b"key qvk_abcdefgh, tokens of epoch 1")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sets this for its processes."""
    monkeypatch.setenv("ARROW_DEBUG_MEMORY_POOL", "")


def test_the_command_replays_what_was_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "one.input"
    kept.write_bytes(b"fields.yaml\nfields: [$.ssn]\n")
    assert main(["configuration", "--replay", str(kept)]) == 0
    assert capsys.readouterr().out == f"{kept}: fields.yaml read\n"


def test_the_command_feeds_a_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["handshake", "--inputs", "300", "--seed", "5", "--findings", str(tmp_path / "none")]) == 0
    assert "300 inputs, 0 of them failed. Seed 5" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()
