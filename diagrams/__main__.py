"""``bin/diagrams``: draws 3-as-built.d2 from what runs, and renders every source in this folder to the SVG beside it."""

import subprocess
import sys
import tempfile
from pathlib import Path

from chaos.testbed.cluster import Cluster
from diagrams import rooms, routes, running

FOLDER = Path(__file__).parent
AS_BUILT = FOLDER / "3-as-built.d2"

_AS_BUILT = """\
# Drawn by bin/diagrams from what runs: the folders and their imports, the routes of the applications, and the processes of a
# cluster in /proc. A test compares the first two with the code.
direction: down
vars: {{d2-config: {{layout-engine: elk; pad: 20}}}}
classes: {{room: {{style.border-radius: 6; style.fill: "#ffffff"; style.font-size: 20}}}}
*.style.fill: "#ffffff"
grid-columns: 2
grid-gap: 20

{rooms}
right: "" {{
grid-columns: 1
style.stroke-width: 0

{routes}
{running}}}
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, Cluster.create(Path(directory) / "vault", ("clinic",)) as cluster:
        cluster.bring_up()
        cluster.api("n1", "clinic").tokenize(["so that each node has something to keep"])
        cluster.api("n2", "clinic").tokenize(["and its log an event"])
        cluster.api("n3", "clinic").tokenize(["and its log an event"])
        text = _AS_BUILT.format(rooms=rooms.draw(), routes=routes.draw(), running=running.draw(cluster))
    AS_BUILT.write_text(text)
    for source in sorted(FOLDER.glob("*.d2")):
        drawing = source.with_suffix(".svg")
        subprocess.run([Path(sys.executable).with_name("d2"), source, drawing], check=True)
        drawing.chmod(0o644)


if __name__ == "__main__":
    main()
