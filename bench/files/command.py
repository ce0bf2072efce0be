"""``bin/bench files``: a cluster, a dataset, the copies, the texts, and what came of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from bench.files.dataset import Dataset
from bench.files.paths import compare
from bench.files.plan import FilesPlan
from bench.files.report import FilesReport, summarise
from bench.files.run import Copies
from bench.load import OWNER, Load, start
from bench.processes import machine
from chaos.testbed.cluster import NODES
from quorumvault.client import Client


def measure(plan: FilesPlan, directory: Path | None, tell: Callable[[str], None]) -> FilesReport:
    """Runs a plan on a cluster of its own, in a temporary directory of ``directory``."""
    with (
        tempfile.TemporaryDirectory(prefix="quorumvault-bench-", dir=directory) as place,
        start(Path(place) / "cluster") as cluster,
        Client([cluster.url(name) for name in NODES], api_key=cluster.api_key(OWNER)) as vault,
    ):
        tell(f"tokenizing {plan.distinct:,} values")
        dataset = Dataset(Path(place) / "dataset")
        dataset.tokenize(vault, plan.distinct)
        variables = {"QUORUMVAULT_URL": ",".join(map(cluster.url, NODES)), "QUORUMVAULT_API_KEY": cluster.api_key(OWNER)}
        copies = Copies(dataset, Path(place) / "copies", variables, tell).run(plan)
        paths = compare(vault, Load(cluster), dataset.tokens(plan.texts), plan.repetitions, tell)
        cluster.stop()
    made = f"{datetime.now(UTC):%Y-%m-%d}"
    return summarise(copies, paths, made=made, machine=machine(), plan=plan.name, repetitions=plan.repetitions)
