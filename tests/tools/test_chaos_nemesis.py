"""The plan of faults: it depends on the seed and nothing else, and never goes beyond what the promises cover."""

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos import nemesis
from chaos.nemesis import STEADY, Fault, Kind, Pace, both_ways, chosen, deaf, goes_with, others, plan, unheard, wires_of
from chaos.testbed.cluster import NODES

NODE = st.sampled_from(NODES)
SEEDS = st.integers(0, 2**32 - 1)
KINDS = st.sets(st.sampled_from(list(Kind)), min_size=1).map(lambda kinds: sorted(kinds, key=list(Kind).index))
PACES = st.sampled_from([nemesis.BRISK, STEADY, nemesis.LONG])
ALL = tuple(Kind)


def overlapping(faults: tuple[Fault, ...]) -> list[tuple[Fault, Fault]]:
    return [(a, b) for a, b in combinations(faults, 2) if a.begins < b.ends and b.begins < a.ends]


@given(SEEDS, KINDS, PACES)
def test_a_seed_gives_one_plan(seed: int, kinds: list[Kind], pace: Pace) -> None:
    assert plan(seed, 300, kinds, pace) == plan(seed, 300, kinds, pace)


@given(SEEDS, KINDS, PACES)
def test_no_plan_asks_for_more_than_is_promised(seed: int, kinds: list[Kind], pace: Pace) -> None:
    faults = plan(seed, 400, kinds, pace)
    assert {fault.kind for fault in faults} <= set(kinds)
    for first, second in overlapping(faults):
        both = {first.kind, second.kind}
        assert both.isdisjoint(nemesis.JOINS), "something else goes wrong while a disk is replaced"
        assert not both <= nemesis.LOSING, "two disks lose something at the same time"
        assert not both <= nemesis.NETWORK
        assert first.kind is not second.kind
        if both & nemesis.EVERYWHERE:
            assert both & nemesis.NETWORK
        elif not both & nemesis.NETWORK:
            assert first.node != second.node, "two things happen to one process"


@given(SEEDS, KINDS)
def test_faults_are_in_order_in_time_and_numbered(seed: int, kinds: list[Kind]) -> None:
    faults = plan(seed, 200, kinds, STEADY)
    assert [fault.number for fault in faults] == list(range(len(faults)))
    assert sorted(faults, key=lambda fault: fault.begins) == list(faults)
    for fault in faults:
        assert STEADY.calm[0] <= fault.begins < fault.ends <= 200
        least = nemesis.LEAST.get(fault.kind, 0.0)
        assert max(STEADY.trouble[0], least) <= round(fault.ends - fault.begins, 6) <= max(STEADY.trouble[1], least)
        assert fault.kind is not Kind.FULL_DISK or fault.node == nemesis.SMALL_DISK
        assert fault.wires == wires_of(fault.kind, fault.node, fault.dice)


@given(SEEDS, PACES)
def test_between_episodes_it_is_calm_for_long_enough(seed: int, pace: Pace) -> None:
    faults = plan(seed, 300, ALL, pace)
    ended = 0.0
    for fault in faults:
        assert fault.begins < ended or fault.begins - ended >= pace.calm[0]
        ended = max(ended, fault.ends)


@given(SEEDS)
def test_a_long_plan_has_each_kind_about_as_often(seed: int) -> None:
    counts = Counter(fault.kind for fault in plan(seed, 3_600, ALL, STEADY))
    assert counts.keys() == set(ALL)
    assert min(counts.values()) >= max(counts.values()) / 5


def test_a_script_has_what_it_is_told_in_order_and_one_at_a_time() -> None:
    kinds = (Kind.PAUSE, Kind.KILL, Kind.KILL, Kind.FULL_DISK)
    faults = nemesis.script(3, kinds, nemesis.BRISK)
    assert (tuple(fault.kind for fault in faults), overlapping(faults)) == (kinds, [])


@given(NODE)
def test_who_hears_whom(node: str) -> None:
    assert not unheard(node) & deaf(node)
    assert (unheard(node) | deaf(node), len(both_ways(node, others(node)))) == (both_ways(node, others(node)), 4)
    assert all(source == node for source, _ in unheard(node))
    assert all(target == node for _, target in deaf(node))


@given(NODE, st.integers(0, 2**32 - 1))
def test_each_cut_leaves_two_nodes_that_hear_each_other(node: str, dice: int) -> None:
    for kind in nemesis.NETWORK:
        wires = wires_of(kind, node, dice)
        assert wires
        assert all(node in wire for wire in wires)
        pair = others(node)
        assert not {pair, pair[::-1]} & wires


@given(NODE, st.integers(0, 2**32 - 1))
def test_one_to_one_is_a_cut_between_two_both_ways(node: str, dice: int) -> None:
    wires = wires_of(Kind.ONE_TO_ONE, node, dice)
    assert (len(wires), {wire[::-1] for wire in wires}) == (2, set(wires))


def test_kinds_are_asked_for_by_name_or_family() -> None:
    assert chosen(["kill-starting", "pause"]) == (Kind.KILL_STARTING, Kind.PAUSE)
    assert (chosen(["kill"]), chosen(nemesis.FAMILIES)) == ((Kind.KILL, Kind.KILL_IN_MID_REQUEST, Kind.KILL_STARTING), ALL)
    with pytest.raises(ValueError, match="no such fault: kil; expected kill, all, "):
        chosen(["pause", "kil"])


def test_what_is_on_everything_goes_with_nothing_but_the_network() -> None:
    assert goes_with(Kind.CUT_OFF, [Kind.KILL_ALL])
    assert not goes_with(Kind.KILL, [Kind.KILL_ALL])
    assert not goes_with(Kind.KILL_ALL, [Kind.SLOW_SYNCS])
    assert not goes_with(Kind.TORN_LOG, [Kind.DISK_GONE])
    assert goes_with(Kind.TORN_LOG, [Kind.FULL_DISK])
