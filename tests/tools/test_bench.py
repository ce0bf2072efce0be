"""The benchmark: samples become a report, and a report tables, sentences, verdicts and a picture; the floor does real work."""

import dataclasses
import re
import select
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.__main__ import BENCHES, FAMILIES, Family, main
from bench.figures import VaultReport, summarise
from bench.floor import COPIES, Floor, FloorBroken
from bench.http import Connection, LoadFailed
from bench.measure import FloorSample, Sample
from bench.plan import PLANS, SMOKE, Plan
from bench.plot import draw
from bench.processes import Memory, cpu_seconds, disk_bytes, until_idle
from bench.report import Report, markdown, percentile, replace_section
from bench.work import Corpus, Operation, WrongAnswer
from chaos.testbed.draw import logarithmic
from quorumvault.crypto.tokens import is_token
from quorumvault.server.storage.binding import plyvel
from tests import ROOT


def _floor(cpu: float, values: int = 1_000) -> FloorSample:
    return FloorSample(values, seconds=2 * cpu, loop_cpu=0.75 * cpu, compaction_cpu=0.25 * cpu)


def _sample(operation: Operation = Operation.NEW, batch: int = 1_000, at_once: int = 6, **changed: Any) -> Sample:
    """1,000 values in a tenth of a second, with twice the floor's CPU time."""
    sample = Sample(
        operation=operation,
        batch=batch,
        at_once=at_once,
        values=1_000,
        seconds=0.1,
        latencies=array("d", [0.010, 0.020, 0.030]),
        nodes_cpu=0.040,
        client_cpu=0.002,
        floors=(_floor(0.020), _floor(0.020)),
        memory=Memory(own=50.0, mapped=20.0),
        disk_bytes=1_000_000.0,
        records=10_000,
    )
    return dataclasses.replace(sample, **changed)


def _report(samples: Sequence[Sample]) -> VaultReport:
    return msgspec.structs.replace(summarise(samples, "smoke", 3), machine="2 × some processor")


def _whole(**changed: Any) -> VaultReport:
    """A report on all that the smoke plan measures. 16 requests at once have three times the rate of one at a time."""
    keys = [(group.operation, group.batch, at_once) for group in SMOKE.groups for at_once in group.at_once]
    return _report([_sample(*key, **({"seconds": 0.1 if key[2] > 1 else 0.3} | changed)) for key in keys])


# Samples to cells.


def test_a_cell_has_the_figures_of_its_samples() -> None:
    (cell,) = _report([_sample()]).cells
    assert (cell.values_per_second, cell.median_ms, cell.requests) == (10_000, 20, 3)
    assert (cell.nodes_cpu, cell.client_cpu, cell.floor_cpu) == pytest.approx((40, 2, 20))
    assert (cell.ratio, cell.ratio_with_client, cell.client_share) == pytest.approx((2, 2.1, 0.02))
    assert (cell.own_mib, cell.mapped_mib, cell.disk_bytes_per_record) == (50, 20, 100)


def test_what_is_timed_is_the_median_and_cpu_the_sum() -> None:
    (cell,) = _report([_sample(seconds=seconds, nodes_cpu=cpu) for seconds, cpu in ((0.1, 0.03), (0.2, 0.03), (5.0, 0.12))]).cells
    assert cell.values_per_second == 5_000
    assert cell.nodes_cpu == pytest.approx(60)
    assert (cell.lowest_ratio, cell.ratio, cell.highest_ratio) == pytest.approx((1.5, 3, 6))


@given(st.floats(0.1, 10), st.floats(0.1, 10))
def test_a_machine_that_slows_down_does_not_change_a_ratio(first: float, second: float) -> None:
    """Each repetition is slower by its own factor, the same for the vault and the floor."""
    samples = [_sample(nodes_cpu=0.04 * slow, floors=(_floor(0.02 * slow), _floor(0.02 * slow))) for slow in (first, second)]
    (cell,) = _report(samples).cells
    assert (cell.lowest_ratio, cell.ratio, cell.highest_ratio) == pytest.approx((2, 2, 2))


def test_the_floor_counts_before_and_after() -> None:
    report = _report([_sample(floors=(_floor(0.010), _floor(0.060, values=3_000)))])
    assert report.cells[0].floor_cpu == pytest.approx(17.5)
    (floor,) = report.floor
    assert (floor.cpu, floor.compaction_cpu) == pytest.approx((17.5, 4.375))


@given(st.lists(st.floats(0, 100), min_size=1), st.integers(1, 99))
def test_a_percentile_is_one_of_the_numbers(numbers: list[float], percent: int) -> None:
    """At least ``percent`` percent of the numbers are no larger, and fewer than that are smaller."""
    found = percentile(numbers, percent)
    assert found in numbers
    assert sum(number <= found for number in numbers) * 100 >= percent * len(numbers)
    assert sum(number < found for number in numbers) * 100 < percent * len(numbers)


# Reports and verdicts.


@pytest.mark.parametrize("plan", ["smoke", "full"])
def test_a_run_is_held_to_targets_and_a_smoke_run_to_bounds_that_fail_it(plan: str) -> None:
    """The full plan's targets are reported but never fail a run, because they are for a machine with two cores."""
    keys = [(Operation.NEW, 1_000, at_once) for at_once in (1, 16)]
    extra = _report([_sample(*key) for key in keys]).cells
    good, bad = _whole(), _whole(nodes_cpu=1.0, client_cpu=0.2, seconds=0.3)
    held, missed = (msgspec.structs.replace(report, plan=plan, cells=[*report.cells, *extra]).account() for report in (good, bad))
    assert held.holds
    assert len(held.checks) == 4
    assert not missed.holds
    assert held.asserted is missed.asserted is (plan == "smoke")
    assert held.checks[-1].figure == "3.00"
    told = "\n".join(held.sentences)
    assert [words for words in ("2 × some processor", "bench/http.py", "held nothing up") if words not in told] == []
    assert "may have held up" in "\n".join(missed.sentences)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family.section], ids=lambda family: family.section)
def test_a_section_has_its_place_in_the_document_and_a_file_without_one_is_refused_at_once(
    family: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert family.section is not None
    replace_section((ROOT / "docs" / "benchmarks.md").read_text(), family.section, "")
    path = tmp_path / "other.md"
    path.write_text("no marks")
    name = next(iter(family.plans)).name
    assert main([name, "--write", str(path)]) == 1
    assert f"{path}: expected the lines '<!-- {family.section} writes from here -->'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        *(["healing", *each] for each in (["--records", "999"], ["--records", "²"], ["--load", "0"], ["--load", "101"])),
        *(["healing", *each] for each in (["--only", "size"], ["--only", "none"], ["--write", "x.md"], ["--inputs", "20"])),
        *(["notfound", "--inputs", count] for count in ("9", "-1", "x", "٣٠")),
        *(["files", "--svg", "x.svg"], ["--repetitions", "0"], ["none"], ["overload", "--load", "50"]),
    ],
    ids=" ".join,
)
def test_what_a_benchmark_does_not_have_is_refused(options: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(options)


def measured(monkeypatch: pytest.MonkeyPatch, name: str, found: Report | Exception) -> list[Any]:
    """Makes a benchmark return ``found``, or raise it. Returns the list of plans with which it is called."""
    plans = []

    def measure(plan: Any, place: Path, tell: object) -> Report:
        plans.append(plan)
        if isinstance(found, Exception):
            raise found
        return found

    plan, family = BENCHES[name]
    monkeypatch.setitem(BENCHES, name, (plan, family._replace(measure=measure)))
    return plans


@pytest.mark.parametrize(("nodes_cpu", "code"), [(0.04, 0), (1.0, 1)])
def test_the_command_measures_shows_writes_and_judges(
    nodes_cpu: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page, figures, picture = (tmp_path / name for name in ("page.md", "figures.json", "picture.svg"))
    page.write_text("before\n<!-- bin/bench writes from here -->\nold\n<!-- bin/bench writes up to here -->\nafter\n")
    report = _whole(nodes_cpu=nodes_cpu)
    measured(monkeypatch, "smoke", report)
    assert main(["smoke", "--write", str(page), "--json", str(figures), "--svg", str(picture)]) == code
    once = page.read_text()
    assert re.fullmatch(
        r"before\n<!-- .* from here -->\n\n- .*\(picture\.svg\).*\n\n<!-- .* up to here -->\nafter\n", once, re.DOTALL
    )
    assert "old" not in once
    assert replace_section(once, "bin/bench", markdown(report.account(), "picture.svg")) == once
    assert (msgspec.json.decode(figures.read_bytes(), type=VaultReport), picture.read_text()) == (report, draw(report))
    assert ("MISSED" in capsys.readouterr().out) == bool(code)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("healing --records 5000 --only lost --only away --load 50", {"records": 5000, "runs": ("lost", "away"), "load": 0.5}),
        ("notfound --inputs 50 --seed 3", {"inputs": 50, "seed": 3}),
        ("healing-smoke", {"records": 6_000, "few": 1_000}),
    ],
)
def test_options_change_the_plan_and_a_run_that_fails_says_so_in_one_line(
    options: str, expected: dict[str, object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *words = options.split()
    plans = measured(monkeypatch, name, LoadFailed("status 500: oh"))
    assert main([name, *words]) == 1
    assert [{option: getattr(plan, option) for option in expected} for plan in plans] == [expected]
    assert capsys.readouterr().err == f"bin/bench {name}: status 500: oh\n"


# The picture.


def test_the_picture_has_a_line_for_each_series() -> None:
    keys = [(operation, batch, at_once) for operation in Operation for batch in (1, 100, 1_000) for at_once in (1, 6, 16)]
    report = msgspec.structs.replace(_report([_sample(*key) for key in keys]), machine="<processor> & more")
    picture = draw(report)
    assert picture == draw(report)
    assert "&lt;processor&gt; &amp; more" in picture
    document = ElementTree.fromstring(picture)
    lines = document.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 2 * len(Operation) * (3 + 1) + 4  # plus those of the legend
    width, height = float(document.attrib["width"]), float(document.attrib["height"])
    for line in lines:
        points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        assert len(points) in (2, 3)
        assert all(0 <= x <= width and 0 <= y <= height for x, y in points)


@given(st.lists(st.floats(0.01, 1e7), min_size=1))
def test_a_scale_has_room_for_every_figure(figures: list[float]) -> None:
    scale = logarithmic(figures)
    assert all(-1e-9 <= scale.place(figure) <= 1 + 1e-9 for figure in figures)
    assert 2 <= len(scale.ticks) <= 11
    assert (scale.place(scale.ticks[0]), scale.place(scale.ticks[-1])) == pytest.approx((0, 1))


# Plans and work.


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_vault_and_floor_grow_alike(plan: Plan) -> None:
    """A larger store makes new records more expensive, so neither may grow faster."""
    vault = floor = 0
    for group in plan.groups:
        if group.operation is Operation.NEW:
            vault += sum(group.batch * plan.requests_of(group.batch, at_once) for at_once in group.at_once)
            floor += group.batch * plan.floor_requests[group.batch] * (len(group.at_once) + 1)
    assert abs(vault - floor) < 0.05 * vault


def test_a_wrong_answer_is_noticed() -> None:
    corpus = Corpus(stride=1, seed=1)
    task = corpus.task(Operation.NEW, 3, 1)
    with pytest.raises(WrongAnswer):
        corpus.settle(task, [b'{"epoch":1,"tokens":["a","b","b"]}'])
    corpus.settle(task, [b'{"epoch":1,"tokens":["a","b","c"]}'])
    with pytest.raises(WrongAnswer):
        corpus.settle(corpus.task(Operation.REPEATED, 3, 1), [b'{"epoch":1,"tokens":["x","x","x"]}'])
    with pytest.raises(WrongAnswer):
        corpus.settle(corpus.task(Operation.RECOVERED, 1, 1), [b'{"results":[{"status":"not_found"}],"found":0,"not_found":1}'])


@given(st.lists(st.integers(1, 7), max_size=8), st.integers(1, 5))
def test_every_so_many_th_pair_is_kept(batches: list[int], stride: int) -> None:
    corpus = Corpus(stride, seed=1)
    values = []
    for batch in batches:
        task = corpus.task(Operation.NEW, batch, 1)
        values += task.values[0]
        tokens = [f'"token of {value}"' for value in task.values[0]]
        corpus.settle(task, [f'{{"epoch":1,"tokens":[{",".join(tokens)}]}}'.encode()])
    kept = values[::stride]
    task = corpus.task(Operation.REPEATED, len(kept), 1)
    assert (sorted(task.values[0]), [f"token of {value}" for value in task.values[0]]) == (sorted(kept), task.tokens[0])


# The cost of processes.


def test_a_process_is_idle_once_its_threads_wait() -> None:
    """The CPU clock of another process is read, and a spinning thread counts as unfinished work."""
    program = "import sys, time\nfor line in sys.stdin:\n    until = time.process_time() + 0.2\n"
    program += "    while time.process_time() < until: pass\n"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        until_idle(process.pid)
        before = cpu_seconds(process.pid)
        process.stdin.write(b"\n")
        process.stdin.flush()
        deadline = time.monotonic() + 10
        while cpu_seconds(process.pid) == before and time.monotonic() < deadline:
            pass
        until_idle(process.pid)
        assert cpu_seconds(process.pid) >= before + 0.2


# The floor.


def test_the_floor_does_the_work(tmp_path: Path) -> None:
    """Its answers are right, its tokens have the vault's form, and each of its stores has every record."""
    floor, corpus = Floor(tmp_path / "floor"), Corpus(stride=1, seed=1)
    new = corpus.task(Operation.NEW, 50, 2)
    corpus.settle(new, list(map(floor.new, new.bodies)))
    for operation, call in ((Operation.REPEATED, floor.repeated), (Operation.RECOVERED, floor.recovered)):
        task = corpus.task(operation, 20, 3)
        corpus.settle(task, list(map(call, task.bodies)))
        floor.reopen()
        corpus.settle(task, list(map(call, task.bodies)))
        assert all(is_token(token) for batch in task.tokens for token in batch)
    floor.close()
    for copy in range(COPIES):
        with plyvel.DB(str(tmp_path / "floor" / str(copy))) as store:
            assert sum(1 for _ in store) == 100
    assert disk_bytes(tmp_path / "floor" / "0") > 100 * 60


def test_the_floor_notices_what_is_not_there(tmp_path: Path) -> None:
    floor, corpus = Floor(tmp_path / "floor"), Corpus(stride=1, seed=1)
    with pytest.raises(FloorBroken):
        floor.repeated(corpus.task(Operation.NEW, 1, 1).bodies[0])
    token = re.search(rb"qv_1_\w+", floor.new(b'{"values":["known"]}'))
    assert token is not None
    floor.recovered(b'{"tokens":["%s"]}' % token[0])
    with pytest.raises(FloorBroken):
        floor.recovered(b'{"tokens":["%s"]}' % (token[0][:-1] + (b"0" if token[0][-1:] != b"0" else b"1")))
    floor.close()


@pytest.mark.parametrize(
    "framing",
    [b"Content-Length: 10\r\n\r\n0123456789", b"Transfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n"],
)
def test_the_client_takes_an_answer_of_either_framing_however_it_arrives(framing: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        theirs, _ = listening.accept()
    with ours, theirs, select.epoll() as poll:
        connection = Connection(0, ours)
        for _ in range(2):  # the connection is kept
            poll.register(connection.fileno(), connection.events)
            head, rest = b"HTTP/1.1 200 OK\r\n" + framing[:30], framing[30:]
            theirs.sendall(head)
            assert poll.poll(20)
            assert connection.serve(select.EPOLLIN, poll) is None
            theirs.sendall(rest)
            assert poll.poll(20)
            assert connection.serve(select.EPOLLIN, poll) == (200, b"0123456789")
