"""conf/alerts.yml: Prometheus can load the rules, they name existing series, docs/operations.md explains them, all are tested.

.ci/promtool has Prometheus check the rules itself.
"""

import re
from typing import Any

import pytest
import yaml

from quorumvault.server.telemetry.metrics import COMPARISONS, REJECTIONS, STATES, TABLE
from tests import ROOT
from tests.unit.server.telemetry.test_metrics import OPERATIONS, OUTCOMES, codes

RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((ROOT / "conf" / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
METRICS = {f"quorumvault_{row.name}" for row in TABLE}
OPERATIONS_PAGE = (ROOT / "docs" / "operations.md").read_text()
HEADINGS = re.findall(r"^### (\w+)$", OPERATIONS_PAGE, re.MULTILINE)
WORDS = {
    "state": set(STATES),
    "reason": set(REJECTIONS),
    "outcome": OUTCOMES | set(codes()) | set(COMPARISONS),
    "job": {"quorumvault"},
    "operation": OPERATIONS,
}


@pytest.fixture(params=RULES, ids=lambda rule: rule["alert"])
def rule(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


def test_a_rule_has_all_that_an_alert_is_made_of(rule: dict[str, Any]) -> None:
    assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"QuorumVault[A-Z]\w+", rule["alert"])
    assert re.fullmatch(r"\d+[sm]", rule["for"])
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    assert {"$labels.instance", "$labels.node"} & set(re.findall(r"\$labels\.\w+", rule["annotations"]["summary"]))


def test_a_rule_speaks_of_series_that_there_are(rule: dict[str, Any]) -> None:
    expression = rule["expr"]
    for name in re.findall(r"\bquorumvault_\w+", expression):
        assert name.removesuffix("_bucket") in METRICS, name
    for label, words in re.findall(r'(\w+)=~?"([^"]+)"', expression):
        assert set(words.split("|")) <= WORDS[label], (label, words)
    assert expression.count("(") == expression.count(")")


def test_a_rule_is_explained_where_it_says(rule: dict[str, Any]) -> None:
    page, anchor = rule["annotations"]["runbook"].split("#")
    assert (page, anchor) == ("docs/operations.md", rule["alert"].lower())


def test_every_alert_and_every_metric_has_a_paragraph_and_nothing_else_has() -> None:
    assert sorted(HEADINGS) == sorted([*METRICS, *(rule["alert"] for rule in RULES)])
    paragraphs = re.split(r"^###? .+\n", OPERATIONS_PAGE, flags=re.MULTILINE)
    assert all(len(paragraph.split()) > 3 for paragraph in paragraphs)


def test_links_within_the_page_lead_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", OPERATIONS_PAGE, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", OPERATIONS_PAGE)) <= anchors


def test_every_alert_is_tested_firing_and_silent() -> None:
    tests = yaml.safe_load((ROOT / "tests" / "prometheus" / "alerts.yml").read_text())["tests"]
    expected = [(case["alertname"], bool(case.get("exp_alerts"))) for test in tests for case in test["alert_rule_test"]]
    for rule in RULES:
        assert {(rule["alert"], True), (rule["alert"], False)} <= set(expected)
