"""Samples that only other programs read: they load, and name only what exists. test_alerts.py has the rules for Prometheus."""

import configparser
import json
import re
from typing import Any

import yaml

from quorumvault.config.limits import Timeouts
from quorumvault.server.telemetry.metrics import TABLE
from tests import ROOT

SAMPLES = ROOT / "quorumvault" / "samples"
METRICS = {f"quorumvault_{row.name}": set(row.labels) for row in TABLE}
#: Labels that Prometheus and its client add.
ADDED = {"instance", "job", "le"}


def test_the_dashboard_asks_for_series_that_there_are_and_shows_labels_that_they_have() -> None:
    board: dict[str, Any] = json.loads((SAMPLES / "grafana.json").read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        for target in panel["targets"]:
            names = re.findall(r"\b(quorumvault_\w+|process_\w+)", target["expr"])
            assert names, panel["title"]
            ours = [name.removesuffix("_bucket") for name in names if not name.startswith("process_")]
            assert set(ours) <= METRICS.keys(), target["expr"]
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert shown <= ADDED.union(*(METRICS[name] for name in ours)), target["legendFormat"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)


def test_the_unit_gives_a_node_the_time_that_it_takes_to_drain() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # names in systemd have capitals
    unit.read(SAMPLES / "systemd" / "quorumvault.service")
    service = unit["Service"]
    assert float(service["TimeoutStopSec"]) > Timeouts().drain_notice + Timeouts().drain
    assert service["RestartPreventExitStatus"].split() == ["1", "2"]
    assert service["ProtectSystem"] == "strict"


def test_the_three_containers_are_the_three_nodes_and_none_shares_its_directory() -> None:
    services = yaml.safe_load((SAMPLES / "container" / "compose.yaml").read_text())["services"]
    assert [service["environment"]["QUORUMVAULT_NODE"] for service in services.values()] == list(services) == ["n1", "n2", "n3"]
    assert len({service["volumes"][0] for service in services.values()}) == 3
