"""Files in which a node or a run keeps its own state: any damage is reported, or passed over."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from random import Random

import msgspec

from quorumvault.errors import ConfigError
from quorumvault.files.job import CellCounts, RunError
from quorumvault.files.manifest import Manifest, Part, Plan, SourcePlan
from quorumvault.formats.table import RowPlace
from quorumvault.model import NODE_NAMES
from quorumvault.protocol.views import DISK_BYTES, Mode, first_view
from quorumvault.server.storage.disk_identity import DiskIdentity, read_identity, write_identity
from quorumvault.server.telemetry.event_log import Event
from quorumvault.server.telemetry.event_reader import EventReader
from tests.fuzz.mutation import mutate
from tests.fuzz.target import InProcess, Violation

_WORDS = (
    b'"', b"{", b"}", b"[", b"]", b":", b",", b"\n", b"null", b"-1", b"1e9", b'"x":', b"\xff", b'"\\ud800"',
    b'"x":' + b"[" * 12_000,
)  # fmt: skip
_PLAN = Plan(
    "tokenize", ("name",), (), "fail", "keep", False, None, None, False, "k", [SourcePlan("a", None, (), "b", None, 1, 2, "d")]
)


class StateFiles(InProcess):
    """An input is the name of a file, a line end, and the file's content."""

    def __init__(self) -> None:
        super().__init__()
        with tempfile.TemporaryDirectory() as name:
            self._good = _good_files(Path(name))

    def open(self, stack: ExitStack) -> None:
        self._path = Path(stack.enter_context(tempfile.TemporaryDirectory()))

    def make(self, rng: Random) -> bytes:
        name = rng.choice(list(self._good))
        return name.encode() + b"\n" + mutate(rng, self._good[name], _WORDS)

    def check_one(self, data: bytes) -> str:
        first, _, content = data.partition(b"\n")
        name = first.decode()
        for other, good in self._good.items():
            (self._path / other).write_bytes(content if other == name else good)
        try:
            match name:
                case "disk.json":
                    read_identity(self._path / name)
                case "events.jsonl":
                    return f"events of {min(3, self._events())}"
                case "manifest.json" | "parts.jsonl":
                    Manifest.load(self._path)
                case _:
                    return "no such file"
        except (ConfigError, RunError):
            return f"{name} refused"
        return f"{name} read"

    def _events(self) -> int:
        reader = EventReader(self._path / "events.jsonl")
        found = reader.last(100, lambda event: True)
        reader.close()
        if any(not entry.line.endswith(b"\n") for entry in found):
            raise Violation("an event out of a line that was never finished")
        return len(found)


def _good_files(folder: Path) -> dict[str, bytes]:
    disks = {name: name.encode() * (DISK_BYTES // 2) for name in NODE_NAMES}
    write_identity(folder / "disk.json", DiskIdentity("c", "n1", disks["n1"], 1, Mode.ACTIVE, first_view(disks)))
    events = [Event(event="tokenize", owner="clinic", items=1), Event(event="auth", detail="x", duration_ms=1.5)]
    (folder / "events.jsonl").write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in events))
    Manifest.begin(folder, _PLAN).add(Part(1, 0, RowPlace(), RowPlace(3, 30, 3), True, 1, CellCounts({"name": 3}, 3), []))
    return {path.name: path.read_bytes() for path in folder.iterdir()}
