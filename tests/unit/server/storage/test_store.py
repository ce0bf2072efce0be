"""The store's contract (storage/store.py), which every store keeps."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from quorumvault.errors import StorageFailed
from quorumvault.server.storage import layout
from quorumvault.server.storage.leveldb import LevelDBStore
from quorumvault.server.storage.memory import MemoryStore
from quorumvault.server.storage.store import CORRUPT, Store
from tests.rigs.faulty_store import FaultyStore

DISK = bytes(range(16))
#: The keys of a store's description of itself, which is not meant for the store's users.
DESCRIPTION = {layout.FORMAT_KEY, layout.DISK_KEY}

Make = Callable[[Path], Store]
MAKERS: dict[str, Make] = {
    "memory": lambda home: MemoryStore(),
    "leveldb": lambda home: LevelDBStore.create(home / "store", DISK),
    "faulty": lambda home: FaultyStore(MemoryStore()),
}


@pytest.fixture(params=MAKERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = MAKERS[request.param](tmp_path)
    yield made
    made.close()


def test_a_batch_is_visible_whole_when_write_returns(store: Store) -> None:
    batch = {b"r%04d" % number: b"%d" % number * 50 for number in range(5000)}
    store.write(batch)
    assert store.get(list(batch)) == list(batch.values())


ENDS_IN_FF = [b"r\xff", b"r\xff\x00", b"r\xff\xff\xff"]
BEGIN_WITH_R = [b"r", b"r\x00", b"r\x00\xff", b"ra", *ENDS_IN_FF]


@pytest.mark.parametrize(
    ("prefix", "start", "expected"),
    [
        (b"r", b"", BEGIN_WITH_R),
        (b"r\x00", b"", [b"r\x00", b"r\x00\xff"]),
        (b"r\xff", b"", ENDS_IN_FF),
        (b"r\xff\xff", b"", [b"r\xff\xff\xff"]),
        (b"\xff", b"", [b"\xff", b"\xff\xff"]),
        (b"\xff\xff\xff", b"", []),
        (b"q", b"", []),
        (b"t", b"", []),
        (b"r", b"ra", [b"ra", *ENDS_IN_FF]),
        (b"r", b"ra\xff", ENDS_IN_FF),
        (b"r", b"a", BEGIN_WITH_R),
        (b"r", b"s", []),
        (b"", b"s", [b"s", b"\xff", b"\xff\xff"]),
    ],
)
def test_a_scan_has_every_key_with_the_prefix_in_order(store: Store, prefix: bytes, start: bytes, expected: list[bytes]) -> None:
    for key in (b"\xff\xff", b"s", b"p\xff", b"\xff", *reversed(BEGIN_WITH_R)):
        store.write({key: b"value of " + key})
    assert list(store.scan(prefix, start)) == [(key, b"value of " + key) for key in expected]


def test_a_scan_shows_the_store_as_it_was_when_it_was_asked_for(store: Store) -> None:
    store.write({b"r1": b"one", b"r3": b"three"})
    pairs = store.scan(b"r")
    store.write({b"r2": b"two", b"r3": b"other"})
    assert next(pairs) == (b"r1", b"one")
    store.write({b"r4": b"four"})
    assert list(pairs) == [(b"r3", b"three")]


def test_scans_may_run_side_by_side_and_stop_half_way(store: Store) -> None:
    store.write({b"r%d" % number: b"" for number in range(10)})
    one, other = store.scan(b"r"), store.scan(b"r")
    assert [next(one)[0], next(other)[0], next(one)[0]] == [b"r0", b"r0", b"r1"]
    del one
    assert len(list(other)) == 9


def test_a_closed_store_refuses_everything(store: Store) -> None:
    store.write({b"r1": b"one"})
    store.close()
    store.close()
    for refused in (lambda: store.get([b"r1"]), lambda: store.write({b"r2": b""}), lambda: store.scan(b"r")):
        with pytest.raises(StorageFailed, match="closed"):
            refused()


def test_a_corrupt_key_spoils_no_other() -> None:
    store = FaultyStore(MemoryStore())
    store.write({b"r1": b"one", b"r2": b"two"})
    store.corrupt.add(b"r1")
    assert store.get([b"r1", b"r2", b"r3"]) == [CORRUPT, b"two", None]
    with pytest.raises(StorageFailed):
        list(store.scan(b"r"))


def test_a_write_that_failed_leaves_what_was_there() -> None:
    store = FaultyStore(MemoryStore())
    store.write({b"r1": b"one"})
    store.fail_write = True
    for _ in range(2):
        with pytest.raises(StorageFailed):
            store.write({b"r1": b"other", b"r2": b"two"})
    assert store.get([b"r1", b"r2"]) == [b"one", None]


#: Few byte values, so that keys are equal or are prefixes of each other.
BYTES = st.lists(st.sampled_from(b"\x00r\xfe\xff"), max_size=4).map(bytes)


class StoreAsDict(RuleBasedStateMachine):
    """A store is a dict that remembers; it may be closed and opened again between any two calls."""

    make: Make

    @initialize()
    def create(self) -> None:
        self.home = tempfile.TemporaryDirectory()
        self.store = self.make(Path(self.home.name))
        self.model: dict[bytes, bytes] = {}

    @rule(puts=st.dictionaries(BYTES, st.binary(max_size=100), max_size=8), deletes=st.lists(BYTES, max_size=3))
    def write(self, puts: dict[bytes, bytes], deletes: list[bytes]) -> None:
        # The entries that say whose store it is are never deleted, as the contract says of records.
        gone = [key for key in deletes if key not in DESCRIPTION]
        self.store.write(puts, gone)
        self.model = {key: value for key, value in self.model.items() if key not in gone} | puts

    @rule(keys=st.lists(BYTES, max_size=20))
    def get(self, keys: list[bytes]) -> None:
        assert self.store.get(keys) == [self.model.get(key) for key in keys]

    @rule(prefix=BYTES, start=BYTES)
    def scan(self, prefix: bytes, start: bytes) -> None:
        found = [(key, value) for key, value in self.store.scan(prefix, start) if key not in DESCRIPTION]
        assert found == sorted((key, value) for key, value in self.model.items() if key.startswith(prefix) and key >= start)

    @rule()
    def reopen(self) -> None:
        if isinstance(self.store, LevelDBStore):
            self.store.close()
            self.store = LevelDBStore.open(Path(self.home.name) / "store", DISK)

    def teardown(self) -> None:
        self.store.close()
        self.home.cleanup()


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_a_store_is_a_dict_that_remembers(name: str) -> None:
    machine = type("Machine", (StoreAsDict,), {"make": staticmethod(MAKERS[name])})
    run_state_machine_as_test(machine, settings=settings(max_examples=30, stateful_step_count=20))
