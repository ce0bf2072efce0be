"""Prints GET /metrics of a node that has served requests, seen a peer die and refused somebody, for `promtool check metrics`."""

import sys
import tempfile
import urllib.request
from pathlib import Path

from chaos.testbed.cluster import Cluster


def scrape() -> bytes:
    """The metrics of n1, of a cluster that lives as long as this takes."""
    with tempfile.TemporaryDirectory() as directory, Cluster.create(Path(directory) / "cluster", ("clinic",)) as cluster:
        cluster.bring_up()
        clinic = cluster.api("n1", "clinic")
        tokens = clinic.tokenize(["a", "b"]).body["tokens"]
        clinic.detokenize([*tokens, "qv_1_unknown"])
        cluster.kill("n3")
        clinic.tokenize(["c"])
        cluster.api("n1").tokenize(["without a key"])
        with urllib.request.urlopen(f"{cluster.url('n1')}/metrics") as answer:
            text: bytes = answer.read()
    return text


if __name__ == "__main__":
    sys.stdout.buffer.write(scrape())
