"""Damage to disks: it is where the harness says, and undoing it restores every byte. And the library in front of the disks."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chaos import disks
from chaos.disks import Damage
from chaos.preloaded import Injector
from chaos.testbed.host import Unavailable
from tests.rigs.made import files

BLOCK = 32 * 1024
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("disk") / "n1" / "store"
    directory.mkdir(parents=True)
    rng = Random(1)
    for name, size in (("000003.log", 10), ("000007.log", 3 * BLOCK + 100), ("000005.ldb", 5_000), ("000006.ldb", 0)):
        (directory / name).write_bytes(rng.randbytes(size))
        os.utime(directory / name, ns=(0, int(name[:6])))
    return directory


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SEEDS)
@pytest.mark.parametrize("damage", [disks.flip_table, disks.flip_log, disks.tear_log])
def test_damage_is_done_and_undone(damage: Callable[[Path, Random], Damage], store: Path, seed: int) -> None:
    before = files(store)
    done = damage(store, Random(seed))
    after = files(store)
    (changed,) = [name for name in before if before[name] != after[name]]
    assert changed in done.words
    done.undo()
    assert files(store) == before


@settings(max_examples=50)
@given(SEEDS)
def test_a_log_is_never_flipped_in_its_last_block(store: Path, seed: int) -> None:
    before = (store / "000007.log").read_bytes()
    done = disks.flip_log(store, Random(seed))
    after = (store / "000007.log").read_bytes()
    assert before[: 3 * BLOCK] != after[: 3 * BLOCK]
    assert before[3 * BLOCK :] == after[3 * BLOCK :]
    done.undo()


def test_what_is_not_there_is_not_damaged(tmp_path: Path) -> None:
    for damage in (disks.flip_table, disks.flip_log, disks.tear_log):
        with pytest.raises(Unavailable):
            damage(tmp_path, Random(1))
    (tmp_path / "000003.log").write_bytes(bytes(BLOCK - 1))
    with pytest.raises(Unavailable, match="shorter than a block"):
        disks.flip_log(tmp_path, Random(1))


def test_a_file_that_was_replaced_meanwhile_is_left_alone(store: Path) -> None:
    table = store / "000005.ldb"
    before = table.read_bytes()
    done = disks.flip_table(store, Random(1))
    table.write_bytes(b"another one")
    done.undo()
    assert table.read_bytes() == b"another one"
    table.write_bytes(before)


def test_a_disk_that_was_taken_away_comes_back_as_it_was(store: Path) -> None:
    data = store.parent
    before = files(data)
    done = disks.take_away(data)
    assert files(data) == {}
    (data / "store").mkdir()
    (data / "store" / "000001.log").write_bytes(b"of a node that came up without its disk")
    done.undo()
    assert (files(data), [path.name for path in data.parent.iterdir()]) == (before, ["n1"])


def test_disks_are_lost_again_and_again(tmp_path: Path) -> None:
    for _ in range(3):
        (tmp_path / "n1" / "store").mkdir(parents=True)
        (tmp_path / "n1" / "store" / "000003.log").touch()
        disks.lose(tmp_path / "n1").undo()
        assert [*tmp_path.rglob("*")] == [tmp_path / "n1"]
        (tmp_path / "n1").rmdir()


#: Writes and syncs a log as a store does, as its arguments say: "write", "sync", "close", "die".
_WRITER = """
import os, signal, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
other = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
for order in sys.argv[3:]:
    if order == "write":
        assert os.write(log, b"record\\n") == os.write(other, b"record\\n") == 7
    elif order == "sync":
        try:
            os.fdatasync(log)
        except OSError as error:
            print(error.errno)
    elif order == "close":
        os.close(log)
    else:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def injector(tmp_path_factory: pytest.TempPathFactory) -> Injector:
    return Injector(tmp_path_factory.mktemp("library"))


def write(injector: Injector, place: Path, *orders: str) -> tuple[int, bytes, bytes, str]:
    """The process's exit code, the content of the log and of another file, and the process's output."""
    log, other = place / "000001.log", place / "events.jsonl"
    command = [sys.executable, "-c", _WRITER, str(log), str(other), *orders]
    done = subprocess.run(command, env=os.environ | injector.variables("n1"), stdout=subprocess.PIPE, timeout=60, check=False)
    return done.returncode, log.read_bytes(), other.read_bytes(), done.stdout.decode()


def test_what_was_not_synced_dies_with_the_process_and_nothing_else_does(injector: Injector, tmp_path: Path) -> None:
    code, log, other, _ = write(injector, tmp_path, "write", "write", "sync", "write", "die")
    assert (code, log, other) == (-9, b"record\n" * 2, b"record\n" * 3)


def test_what_is_closed_is_written(injector: Injector, tmp_path: Path) -> None:
    assert write(injector, tmp_path, "write", "close")[1] == b"record\n"


def test_a_sync_that_fails_writes_nothing_and_says_so(injector: Injector, tmp_path: Path) -> None:
    failing = injector.fail_syncs("n1")
    _, log, _, said = write(injector, tmp_path, "write", "sync", "die")
    assert (log, said.strip()) == (b"", str(errno.EIO))
    failing.undo()
    assert write(injector, tmp_path, "write", "sync", "die")[1:] == (b"record\n", b"record\n", "")


def test_only_the_node_that_is_meant_is_slow(injector: Injector, tmp_path: Path) -> None:
    slow = injector.slow_syncs("n2", 3_600_000)
    assert write(injector, tmp_path, "write", "sync")[0] == 0
    slow.undo()


def clocks(injector: Injector, node: str) -> tuple[float, float, float]:
    """How many seconds a process's clocks differ from this one's: time of day by two functions of libc, and monotonic time."""
    script = "import ctypes, time; print(time.time(), ctypes.CDLL(None).time(None), time.monotonic())"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=os.environ | injector.variables(node), stdout=subprocess.PIPE, timeout=60, check=True)
    exact, whole, monotonic = map(float, done.stdout.split())
    return exact - time.time(), whole - time.time(), monotonic - time.monotonic()


def test_a_clock_that_jumped_is_wrong_for_its_node_alone_and_only_the_time_of_day_is(injector: Injector) -> None:
    injector.variables("n2")
    jumped = injector.jump("n2", -100_000)
    assert jumped.words == "its clock jumps 100000 s back"
    exact, whole, monotonic = clocks(injector, "n2")
    assert max(abs(exact + 100_000), abs(whole + 100_000), abs(monotonic)) < 10_000
    assert max(map(abs, clocks(injector, "n1"))) < 10_000
    jumped.undo()
    assert max(map(abs, clocks(injector, "n2"))) < 10_000
