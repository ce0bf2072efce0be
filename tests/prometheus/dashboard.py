"""Reads the dashboard by Grafana's own types, and writes it: exits with 1 if they know anything in it not, or otherwise.

.ci/samples has the package, grafana-foundation-sdk. What is not in its types, Grafana passes over without a word.
"""

import json
import sys
from collections.abc import Iterator

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests import ROOT


def lost(ours: object, theirs: object, place: str) -> Iterator[str]:
    """Yields where the two differ, but for what they added."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from lost(value, theirs.get(key), f"{place}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from lost(one, other, f"{place}[{number}]")
    elif ours != theirs:
        yield f"{place}: {ours!r} is {theirs!r} to Grafana"


def main() -> None:
    ours = json.loads((ROOT / "quorumvault" / "samples" / "grafana.json").read_text())
    theirs = json.loads(JSONEncoder().encode(Dashboard.from_json(ours)))
    if found := list(lost(ours, theirs, "dashboard")):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
