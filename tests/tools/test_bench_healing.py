"""The acceptance runs: which bits flip, which records have to be there, and how figures compare with the promises.

``bin/bench healing-smoke`` shows that the three stores are filled alike, with records that the nodes accept: it compares them
record by record, and each token with the corpus.
"""

import itertools
import json
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.healing.foreground import Vault
from bench.healing.mending import flip_tables
from bench.healing.report import Answers, Away, HealingReport, Lost, New, ReadBack, Rotten, Rss, Size, Verified
from bench.healing.stores import Corpus, keyring
from bench.http import LoadFailed
from bench.openloop import Answered, Run
from bench.report import show
from bench.work import WrongAnswer
from chaos.testbed.cluster import Cluster
from quorumvault.config.addresses import plan_nodes
from quorumvault.model import NODE_NAMES, Owner
from quorumvault.server.offline.init import init

OWNER = "bench"

# Which bits flip


def flipped(folder: Path, before: dict[str, bytes], count: int, seed: int) -> dict[str, int]:
    """The number of bits that flipped in each of these files."""
    for name, content in before.items():
        (folder / name).write_bytes(content)
    hit = flip_tables(folder, count, Random(seed))
    after = {name: (folder / name).read_bytes() for name in before}
    assert {name: len(content) for name, content in after.items()} == {name: len(content) for name, content in before.items()}
    bits = {name: (int.from_bytes(content) ^ int.from_bytes(after[name])).bit_count() for name, content in before.items()}
    assert hit == sum(count > 0 for count in bits.values())
    return bits


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=8).filter(any), st.integers(), st.data())
def test_just_so_many_bits_of_tables_flip_and_nothing_else_does(tables: list[bytes], seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8 * sum(map(len, tables))))
    before = {f"{number}.ldb": content for number, content in enumerate(tables)} | {"3.log": b"log"}
    with TemporaryDirectory() as folder:
        bits = flipped(Path(folder), before, count, seed)
    assert (sum(bits.values()), bits["3.log"]) == (count, 0)


def test_every_bit_is_as_likely_as_any_other_and_a_seed_chooses_the_same(tmp_path: Path) -> None:
    before = {"1.ldb": bytes(100_000), "2.ldb": bytes(300_000)}
    bits = flipped(tmp_path, before, 4_000, 1)
    assert 900 < bits["1.ldb"] < 1_100
    assert bits == flipped(tmp_path, before, 4_000, 1) != flipped(tmp_path, before, 4_000, 2)
    with pytest.raises(ValueError, match="larger"):
        flip_tables(tmp_path, 8 * 400_000 + 1, Random(1))


# What was acknowledged


def run_of(vault: Vault, batch: int, statuses: list[int], **changed: bytes) -> Run:
    answered = []
    for number, status in enumerate(statuses):
        tokens = vault.corpus.tokens(vault.corpus.values(vault.made + number * batch, batch))
        body = changed.get(f"answer_{number}", json.dumps({"epoch": 1, "tokens": tokens}).encode())
        answered.append(Answered(number, status, 0.0, 0.01, body))
    return Run(1.0, answered, unsent=1, broken=1)


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    directory, now = tmp_path / "vault", datetime(2026, 1, 1, tzinfo=UTC)
    init(directory, plan_nodes(["127.0.0.1"], 20_000), [Owner(OWNER)], now=now, entropy=Random(1).randbytes)
    cluster = Cluster(directory, dict.fromkeys(NODE_NAMES, "127.0.0.1:1"), {OWNER: "a key"})
    return Vault(cluster, Corpus(keyring(directory / "cluster.yaml"), OWNER, seed=7), 1_000, [range(1_000)])


def test_only_what_was_answered_with_200_has_to_be_there(vault: Vault) -> None:
    vault.settle(run_of(vault, 10, [200, 503, 429, 200]), 10)
    assert (vault.acknowledged, vault.made) == ([range(1_000), range(1_000, 1_010), range(1_030, 1_040)], 1_060)
    assert sum(map(len, vault.batches(7))) == vault.records == 1_020
    assert max(map(len, vault.batches(7))) == 7


def test_a_wrong_token_or_an_answer_that_is_none_ends_the_run(vault: Vault) -> None:
    with pytest.raises(WrongAnswer, match="its keys make"):
        vault.settle(run_of(vault, 1, [200, 200], answer_1=b'{"epoch":1,"tokens":["qv_1_00"]}'), 1)
    with pytest.raises(LoadFailed, match="500: oh"):
        vault.settle(run_of(vault, 1, [200, 500], answer_1=b"oh"), 1)


def test_requests_are_made_when_they_are_due(vault: Vault) -> None:
    bodies = vault.new_bodies(100_000_000, 2)
    asked = [json.loads(body)["values"] for body in itertools.islice(bodies, 3)]
    assert asked == [vault.corpus.values(first, 2) for first in (1_000, 1_002, 1_004)]


# Figures and promises

SAME = Verified(True, {"n2": 10, "n3": 10})


def answers(p99_ms: float = 20.0) -> Answers:
    return Answers(5_000, 100_000, 10.0, p99_ms, 0, 0)


AWAY = Away(20_000.0, 60.0, 300_000, 0.9, 9.9, answers(), answers(), SAME)


def new(*values_per_second: float) -> list[New]:
    return [New(each, 60.0) for each in values_per_second]


LOST = Lost(20_000.0, 59.0, answers(20.0), answers(40.0), SAME)
ROTTEN = Rotten(100, 40, 12.0, 2, ReadBack(500, 0, 0, 1_000), ReadBack(2_000, 0, 0, 0), SAME)
SIZE = Size(
    10_000_000, 900.0, [1.0, 4.9, 2.0], 40.0, Rss(50, 100), Rss(60, 539), 1_000_000, 0.2, 800.0, new(10, 10, 10), new(6, 9, 1)
)
WHOLE = HealingReport("2026-01-02", "2 × some processor", "healing", 1_000_000, AWAY, LOST, ROTTEN, SIZE)


def missed(**changed: object) -> set[str]:
    """Returns the figures that miss their targets after these changes."""
    checks = msgspec.structs.replace(WHOLE, **changed).account().checks
    return {f"{check.figure} of {check.target}" for check in checks if not check.held}


def replaced(struct: msgspec.Struct, **changed: object) -> object:
    return msgspec.structs.replace(struct, **changed)


def test_what_is_just_within_its_bounds_holds() -> None:
    assert (missed(), len(WHOLE.account().checks)) == (set(), 2 + 3 + 3 + 4)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"away": replaced(AWAY, caught_up_seconds=10.1)}, "10.1 s of ≤ 10 s"),
        ({"away": replaced(AWAY, verified=Verified(False, {"n2": 1, "n3": 2}))}, "different of identical"),
        ({"lost": replaced(LOST, whole_seconds=60.1)}, "60.1 s of ≤ 60 s"),
        ({"lost": replaced(LOST, meanwhile=answers(40.2))}, "2.01 times of ≤ 2 times"),
        ({"lost": replaced(LOST, verified=Verified(False, {}))}, "different of identical"),
        ({"rotten": replaced(ROTTEN, meanwhile=ReadBack(500, 0, 1, 0))}, "1 and 0 of 0 and 0"),
        ({"rotten": replaced(ROTTEN, meanwhile=ReadBack(500, 1, 0, 0))}, "0 and 1 of 0 and 0"),
        ({"rotten": replaced(ROTTEN, afterwards=ReadBack(500, 0, 0, 3))}, "3 of 500 of 0"),
        ({"rotten": replaced(ROTTEN, verified=Verified(False, {}))}, "different of identical"),
        ({"size": replaced(SIZE, start_seconds=[1.0, 5.0, 2.0])}, "5.00 s of < 5 s"),
        ({"size": replaced(SIZE, peak=Rss(60, 540))}, "600 MiB of < 600 MiB"),
        ({"size": replaced(SIZE, round_bytes=1 << 20)}, "1,048,576 of < 1,048,576"),
        ({"size": replaced(SIZE, new_many=new(5, 5.9, 9))}, "59% of ≥ 60%"),
    ],
)
def test_what_is_beyond_a_bound_is_missed(changed: dict[str, object], expected: str) -> None:
    assert missed(**changed) == {expected}


def test_times_do_not_count_where_a_plan_says_so_and_outcomes_do() -> None:
    slow = msgspec.structs.replace(
        WHOLE,
        away=replaced(AWAY, caught_up_seconds=99.0),
        lost=replaced(LOST, whole_seconds=99.0, meanwhile=answers(999.0)),
        size=replaced(SIZE, start_seconds=[9.0], new_many=new(1)),
    )
    smoke = msgspec.structs.replace(slow, plan="healing-smoke").account()
    assert smoke.holds
    assert not slow.account().holds
    wrong = msgspec.structs.replace(WHOLE, plan="healing-smoke", rotten=replaced(ROTTEN, meanwhile=ReadBack(500, 0, 1, 0)))
    assert not wrong.account().holds
    out = StringIO()
    show(smoke, out)
    assert out.getvalue().count("not judged") == 5
    assert "MISSED" not in out.getvalue()
