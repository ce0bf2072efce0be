"""``bin/diagrams``: draws 3-as-built.d2 from what runs, and renders every source in this folder to the SVG beside it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from chaos.cluster import Cluster
from diagrams import modules, routes, running

FOLDER = Path(__file__).parent
AS_BUILT = FOLDER / "3-as-built.d2"

_HEAD = """\
# Drawn by bin/diagrams from what runs: the modules' imports, the routes of the applications, and a cluster's processes in /proc.
# A test compares the first two with the code.
direction: down
vars: {d2-config: {layout-engine: elk; pad: 20}}
grid-columns: 2
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, Cluster.create(Path(directory) / "vault", ("clinic",)) as cluster:
        cluster.start()
        cluster.wait_ready(reachable=3)
        cluster.api("n1", "clinic").tokenize(["so that each node has something to keep"])
        cluster.api("n2", "clinic").tokenize(["and its log an event"])
        cluster.api("n3", "clinic").tokenize(["and its log an event"])
        AS_BUILT.write_text(f"{_HEAD}\n{modules.draw()}\n{routes.draw()}\n{running.draw(cluster)}")
    for source in sorted(FOLDER.glob("*.d2")):
        subprocess.run([Path(sys.executable).with_name("d2"), source, source.with_suffix(".svg")], check=True)


if __name__ == "__main__":
    main()
