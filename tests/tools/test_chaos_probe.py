"""The control beside the nodes: what it sees of the machine's load, and who causes that load."""

import asyncio
import io
import os
from pathlib import Path

import msgspec
import pytest

from chaos import probe
from chaos.probe import CpuTime, cpu_time, shares
from chaos.recorder import Recorder
from chaos.testbed.history import Machine

TICKS = os.sysconf("SC_CLK_TCK")


def process(proc: Path, pid: int, parent: int, name: str, *ticks: int) -> None:
    (proc / str(pid)).mkdir()
    fields = ["S", str(parent), *["0"] * 9, *map(str, ticks), "20"]
    (proc / str(pid) / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")


def test_the_time_of_a_process_and_its_children_is_told_from_that_of_others(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu  1000 200 300 4000 500 60 70 80 900 900\ncpu0 1 2 3 4\n")
    process(tmp_path, 10, 1, "harness", 100, 20, 3, 4)
    process(tmp_path, 11, 10, "a) node (1 2", 1000, 0, 0, 0)
    process(tmp_path, 12, 1, "stranger", 5000, 0, 0, 0)
    (tmp_path / "13").mkdir()  # this process has ended
    (tmp_path / "self").mkdir()
    assert cpu_time(10, tmp_path) == CpuTime(6210 / TICKS, 1710 / TICKS, 1127 / TICKS)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (CpuTime(110.0, 55.0, 21.0), (0.1, 0.4)),
        (CpuTime(110.0, 50.5, 21.0), (0.05, 0.0)),  # ours grew more than the total: ticks are coarse
        (CpuTime(100.0, 50.0, 20.0), (0.0, 0.0)),
        (CpuTime(110.0, 60.0, 19.0), (0.0, 1.0)),
    ],
)
def test_shares_are_of_all_cpu_time(now: CpuTime, expected: tuple[float, float]) -> None:
    assert shares(CpuTime(100.0, 50.0, 20.0), now) == pytest.approx(expected)


def test_what_it_does_takes_longer_than_it_has_to_if_nobody_answers_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(probe, "_LINE", 0.05)
    serve = probe._serve

    async def serve_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.4)
        await serve(reader, writer)

    monkeypatch.setattr(probe, "_serve", serve_late)
    told: list[Machine] = []

    def tell(seen: Machine) -> None:
        told.append(seen)
        raise EOFError

    with pytest.raises(EOFError):
        asyncio.run(probe.watch(tmp_path / "block", os.getppid(), tell))
    (seen,) = told
    assert seen.late >= 0.35
    assert seen.at > seen.since
    assert (tmp_path / "block").stat().st_size == 4096


@pytest.mark.slow
def test_the_process_tells_of_the_machine_into_the_history(tmp_path: Path) -> None:
    lines: list[bytes] = []

    async def story() -> None:
        written = asyncio.Event()

        class File(io.BytesIO):
            def write(self, line: bytes, /) -> int:  # type: ignore[override]
                lines.append(line)
                written.set()
                return len(line)

        async with probe.watched(Recorder(File()), tmp_path):
            await written.wait()

    asyncio.run(story())
    first = msgspec.json.decode(lines[0], type=Machine)
    assert 0 <= first.since < first.at
    assert 0 <= first.ours + first.others <= 1
