"""A run: measures the points of an axis in turn, so that a slow minute of the machine affects all of them alike."""

import random
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bench.growth.plan import GrowthPlan, Point, Store
from bench.growth.report import Axis, GrowthReport, Kept, Row, Speed
from bench.growth.stores import Filled, filled
from bench.healing.size import start_seconds
from bench.http import encode
from bench.load import Load, send
from bench.processes import until_idle
from bench.report import Tell, today
from bench.work import Operation, Results, TokensAsked, TokensGiven, Values, WrongAnswer
from chaos.testbed.cluster import NODES

_body = msgspec.json.Encoder().encode
_given = msgspec.json.Decoder(TokensGiven).decode
_results = msgspec.json.Decoder(Results).decode
_OPERATIONS = (Operation.NEW, Operation.REPEATED, Operation.RECOVERED)


def measure(plan: GrowthPlan, place: Path, tell: Tell) -> GrowthReport:
    """Runs a plan in an empty directory. Raises ClusterError, LoadFailed, WrongAnswer."""
    axes = [_axis(axis, plan, place / axis, tell) for axis in plan.runs]
    return GrowthReport(*today(), plan.name, plan.repetitions, axes)


def _axis(name: str, plan: GrowthPlan, place: Path, tell: Tell) -> Axis:
    place.mkdir()
    points = [point for point in plan.points if point.axis == name]
    with ExitStack() as clusters:
        stores: dict[Store, Filled] = {}
        for number, store in enumerate(dict.fromkeys(point.store for point in points)):
            stores[store] = clusters.enter_context(filled(place / str(number), store, tell))
        kept = {store: _kept(each, plan.idle) for store, each in stores.items()}
        speeds: dict[Point, dict[Operation, list[Speed]]] = {point: {each: [] for each in _OPERATIONS} for point in points}
        chance = random.Random(1)
        for number in range(plan.repetitions):
            for operation in _OPERATIONS:
                for point in points:
                    tell(f"{name}: {operation.value} at {point.x:,}", number / plan.repetitions)
                    speeds[point][operation].append(_speed(stores[point.store], point, operation, chance))
        own = {store: Load(each.cluster).memory().own for store, each in stores.items()}
        rows = [_row(point, speeds[point], kept[point.store], own[point.store]) for point in points]
    made, machine = today()
    return Axis(name, made, machine, plan.repetitions, rows)


def _row(point: Point, speeds: dict[Operation, list[Speed]], kept: Kept, loaded_mib: float) -> Row:
    new, repeated, recovered = (speeds[operation] for operation in _OPERATIONS)
    return Row(point.x, *point.store, point.batch, point.at_once, new, repeated, recovered, kept, loaded_mib)


def _kept(filled: Filled, idle: float) -> Kept:
    """Measures the cost of an idle store, and the time until a killed node serves again."""
    cluster = filled.cluster
    load = Load(cluster)
    until_idle(*load.pids())
    cpu, begun = load.nodes_cpu(), time.monotonic()
    time.sleep(idle)
    percent = (load.nodes_cpu() - cpu) / (time.monotonic() - begun) * 100 / len(NODES)
    resting = load.memory()
    seconds = start_seconds(cluster, NODES[-1])
    cluster.wait_ready(reachable=len(NODES))
    until_idle(*load.pids())
    return Kept(seconds, resting.own, resting.mapped, percent, load.disk_bytes() / filled.store.records)


def _speed(filled: Filled, point: Point, operation: Operation, chance: random.Random) -> Speed:
    """Measures the speed at a point, and checks each answer. Raises WrongAnswer."""
    draw = _new if operation is Operation.NEW else _drawn
    asked = [draw(filled, point.batch, chance) for _ in range(point.requests)]
    if operation is Operation.RECOVERED:
        bodies = [_body(TokensAsked(tokens)) for _, _, tokens in asked]
    else:
        bodies = [_body(Values(values)) for _, values, _ in asked]
    requests = [encode(operation.path, filled.keys[owner], body) for (owner, _, _), body in zip(asked, bodies, strict=True)]
    driving = send(Load(filled.cluster), requests, point.at_once)
    for (_, values, tokens), body in zip(asked, driving.driven.bodies, strict=True):
        if operation is Operation.RECOVERED:
            held = [result.value for result in _results(body).results] == values
        else:
            held = _given(body).tokens == tokens
        if not held:
            raise WrongAnswer(f"it does not hold that each answer is right: {operation.value}")
    count = point.batch * point.requests
    return Speed(count / driving.driven.seconds, driving.nodes_cpu / count * 1e6)


#: An owner's index, and values of the owner with their tokens.
_Asked = tuple[int, list[str], list[str]]


def _new(filled: Filled, batch: int, _: random.Random) -> _Asked:
    owner = filled.next_owner()
    values = filled.corpora[owner].values(filled.made, batch)
    filled.made += batch
    return owner, values, filled.corpora[owner].tokens(values)


def _drawn(filled: Filled, batch: int, chance: random.Random) -> _Asked:
    """Draws values uniformly from those that the owner had at the start."""
    owner = filled.next_owner()
    corpus = filled.corpora[owner]
    values = list(map(corpus.value, chance.sample(range(filled.each), batch)))
    return owner, values, corpus.tokens(values)
