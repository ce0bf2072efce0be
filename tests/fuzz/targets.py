"""All targets, by name, and the share of each in a profile: seconds in CI; inputs of the long profile, a million together."""

import importlib
from typing import Final, NamedTuple

from tests.fuzz.target import Target


class Entry(NamedTuple):
    """``place``: the module and class, imported when needed. ``seconds``: of the profile ci. ``inputs``: of the profile long."""

    place: str
    words: str
    seconds: float
    inputs: int


TARGETS: Final = {
    "raw-http": Entry("tests.fuzz.http_targets:RawHttp", "bytes for the API of a real node, HTTP or almost", 18, 60_000),
    "json-http": Entry("tests.fuzz.http_targets:JsonOverHttp", "JSON requests to a real node", 8, 25_000),
    "arrow-http": Entry("tests.fuzz.http_targets:ArrowOverHttp", "Arrow requests to a real node", 8, 10_000),
    "peer-port": Entry("tests.fuzz.peer_port:PeerPort", "a stranger at the peer port of a real node", 8, 15_000),
    "json": Entry("tests.fuzz.json_target:JsonBodies", "JSON bodies, as OpenAPI has them and not", 8, 200_000),
    "arrow": Entry("tests.fuzz.arrow:ArrowStreams", "Arrow streams", 8, 300_000),
    "handshake": Entry("tests.fuzz.peer_frames:HandshakeSteps", "both sides of the handshake between nodes", 3, 50_000),
    "frames": Entry("tests.fuzz.peer_frames:Frames", "frames between nodes", 4, 70_000),
    "messages": Entry("tests.fuzz.peer_messages:Messages", "messages between nodes", 4, 70_000),
    "backup": Entry("tests.fuzz.backup_target:Backups", "backup files, restored", 5, 28_000),
    "configuration": Entry("tests.fuzz.configuration_target:Configuration", "cluster.yaml, fields.yaml, keys", 6, 70_000),
    "state": Entry("tests.fuzz.state_target:StateFiles", "files that nodes and runs keep of themselves", 3, 20_000),
    "csv": Entry("tests.fuzz.file_targets:Csv", "CSV, tokenized and back", 4, 40_000),
    "jsonl": Entry("tests.fuzz.file_targets:JsonLines", "JSON Lines, tokenized and back", 4, 40_000),
    "parquet": Entry("tests.fuzz.file_targets:ParquetFiles", "Parquet, tokenized and back", 4, 2_000),
}


def made(name: str) -> Target:
    """Returns the target of this name, or of MODULE:CLASS, which some tests use."""
    module, _, kind = (TARGETS[name].place if name in TARGETS else name).partition(":")
    target: Target = getattr(importlib.import_module(module), kind)()
    return target
