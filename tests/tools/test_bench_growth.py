"""``bin/bench growth``: one quantity grows along each axis, runs of single axes are joined, and many owners have many keys."""

import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from bench.__main__ import BENCHES, main
from bench.growth.plan import AXES, CLIENTS, GROWTH, GROWTH_PLANS, OWNERS, RECORDS, VALUES, GrowthPlan
from bench.growth.plot import draw
from bench.growth.report import Axis, GrowthReport, Kept, Row, Speed
from bench.growth.stores import write_keys
from bench.healing.stores import Corpus
from quorumvault.config.api_keys import load_keys
from quorumvault.crypto.keys import Keyring


def row(x: int, speed: float = 1_000.0, own_mib: float = 50.0) -> Row:
    speeds = [Speed(speed * factor, 1e6 / speed) for factor in (0.9, 1.0, 1.5)]
    return Row(x, 100, 1, 15, 10, 6, speeds, speeds, speeds, Kept(1.5, own_mib, 20.0, 0.5, 100.0), own_mib)


def report(*axes: str, made: str = "2026-01-02", speed: float = 1_000.0) -> GrowthReport:
    rows = [row(100_000), row(10_000_000, speed)]
    return GrowthReport(made, "a machine", "growth", 3, [Axis(name, made, "a machine", 3, rows) for name in axes])


@pytest.mark.parametrize("plan", GROWTH_PLANS.values(), ids=GROWTH_PLANS)
def test_along_an_axis_one_thing_grows_and_nothing_else_does(plan: GrowthPlan) -> None:
    for axis in AXES:
        points = [point for point in plan.points if point.axis == axis]
        grown = [(point.store.records, point.store.owners, point.store.value_bytes, point.at_once) for point in points]
        differing = {name for name, each in zip(AXES, zip(*grown, strict=True), strict=True) if len(set(each)) > 1}
        assert differing == {axis}
        assert [point.x for point in points] == sorted({point.x for point in points})
        assert len({(point.batch, point.requests) for point in points}) == 1


@pytest.mark.parametrize("plan", GROWTH_PLANS.values(), ids=GROWTH_PLANS)
def test_each_owner_has_enough_values_for_a_batch_and_each_client_a_request(plan: GrowthPlan) -> None:
    assert all(point.store.records // point.store.owners >= point.batch for point in plan.points)
    assert all(point.requests >= point.at_once for point in plan.points)


def test_the_whole_plan_has_the_points_that_are_wanted() -> None:
    found = {axis: [point.x for point in GROWTH.points if point.axis == axis] for axis in AXES}
    assert found == {RECORDS: [10**5, 10**6, 10**7], OWNERS: [1, 100, 5_000], VALUES: [10, 1_000, 10_000], CLIENTS: [1, 16, 256]}


@pytest.mark.parametrize("length", [10, 15, 1_000])
def test_values_have_their_length_and_none_comes_twice(length: int) -> None:
    corpus = Corpus(Keyring("secret", bytes(32)), "owner", seed=1, length=length)
    values = corpus.values(0, 3_000)
    assert Counter(map(len, values)) == {length: 3_000}
    assert len(set(values)) == 3_000


def test_every_owner_gets_a_key_that_nodes_take(tmp_path: Path) -> None:
    owners = ["first", "second", "third"]
    keys = write_keys(tmp_path / "api_keys.yaml", owners)
    table = load_keys(tmp_path / "api_keys.yaml")
    found = [table.authenticate(key, 0.0) for key in keys]
    assert [(key.owner.name, sorted(key.allow)) for key in found if key is not None] == [
        (owner, ["detokenize", "tokenize"]) for owner in owners
    ]


def test_a_run_of_one_axis_keeps_what_an_earlier_run_had_of_the_others() -> None:
    earlier = msgspec.json.encode(report(CLIENTS, RECORDS, made="2026-01-01"))
    joined = report(RECORDS, OWNERS).joined(earlier)
    assert isinstance(joined, GrowthReport)
    assert [(axis.name, axis.made) for axis in joined.axes] == [
        (RECORDS, "2026-01-02"),
        (OWNERS, "2026-01-02"),
        (CLIENTS, "2026-01-01"),
    ]
    assert report(RECORDS).joined(msgspec.json.encode(msgspec.structs.replace(report(OWNERS), plan="other"))) == report(RECORDS)


@pytest.mark.parametrize(("speed", "verdict"), [(800.0, "met"), (799.0, "MISSED")])
def test_new_tokens_among_ten_million_are_held_to_their_share(speed: float, verdict: str) -> None:
    account = report(RECORDS, CLIENTS, speed=speed).account()
    assert [check.verdict for check in account.checks] == [verdict, "met", "met"]
    assert not account.asserted
    assert not report(CLIENTS).account().checks  # what was not measured is not reported
    assert [table.rows[1][1] for table in account.tables] == [f"{speed:,.0f} ({speed * 0.9:,.0f}–{speed * 1.5:,.0f})"] * 2


def test_the_picture_has_two_panels_for_each_axis_and_a_line_for_each_operation() -> None:
    picture = ElementTree.fromstring(draw(report(RECORDS, CLIENTS)))
    lines = picture.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 2 * 2 * 3 + 3  # plus those of the legend
    texts = [each.text for each in picture.findall("{http://www.w3.org/2000/svg}text")]
    assert texts.count("10,000,000") == 4


def test_an_axis_alone_can_be_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plans: list[GrowthPlan] = []
    plan, family = BENCHES["growth"]

    def measure(plan: GrowthPlan, place: Path, tell: object) -> GrowthReport:
        plans.append(plan)
        return report(*plan.runs)

    monkeypatch.setitem(BENCHES, "growth", (plan, family._replace(measure=measure)))
    assert main(["growth", "--only", "owners", "--json", str(tmp_path / "figures.json")]) == 0
    assert [each.runs for each in plans] == [("owners",)]
