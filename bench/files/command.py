"""A whole run of ``bin/bench files``: a cluster, a dataset, the copies and the texts."""

from __future__ import annotations

from pathlib import Path

from bench.files.dataset import Dataset
from bench.files.paths import compare
from bench.files.plan import FilesPlan
from bench.files.report import FilesReport, summarise
from bench.files.run import Copies
from bench.load import OWNER, Load, start
from bench.report import Tell
from chaos.testbed.cluster import NODES
from quorumvault.client import Client


def measure(plan: FilesPlan, place: Path, tell: Tell) -> FilesReport:
    """Runs a plan on a cluster of its own, in an empty directory."""
    with (
        start(place / "cluster") as cluster,
        Client([cluster.url(name) for name in NODES], api_key=cluster.api_key(OWNER)) as vault,
    ):
        tell(f"tokenizing {plan.distinct:,} values")
        dataset = Dataset(place / "dataset")
        dataset.tokenize(vault, plan.distinct)
        variables = {"QUORUMVAULT_URL": ",".join(map(cluster.url, NODES)), "QUORUMVAULT_API_KEY": cluster.api_key(OWNER)}
        copies = Copies(dataset, place / "copies", variables, tell).run(plan)
        paths = compare(vault, Load(cluster), dataset.tokens(plan.texts), plan.repetitions, tell)
        cluster.stop()
    return summarise(copies, paths, plan.name, plan.repetitions)
