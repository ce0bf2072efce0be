"""bin/bench revocation: how its report is computed, and the keys that it and the harness write to a key file."""

from pathlib import Path

import pytest

from bench.report import today
from bench.revocation import RevocationPlan, RevocationReport, Row, Situation
from chaos.keys import add_keys
from quorumvault.config.api_keys import load_keys
from quorumvault.config.key_changes import new_keyfile
from quorumvault.model import Owner


@pytest.mark.parametrize(("worst", "returned", "holds"), [(2_000.0, 0, True), (2_000.1, 0, False), (10.0, 1, False)])
def test_two_seconds_are_the_most_and_a_node_that_is_back_takes_nothing(worst: float, returned: int, holds: bool) -> None:
    rows = [Row(Situation.ALL_UP, 40, 5.0, 6.0, 7.0, 0), Row(Situation.CUT_OFF_BACK, 10, 5.0, 6.0, worst, returned)]
    assert RevocationReport(*today(), "revocation", rows).account().holds is holds


def test_there_are_a_hundred_trials_and_some_of_each_situation() -> None:
    trials = RevocationPlan().trials()
    assert sum(trials.values()) >= 100
    assert min(trials.values()) >= 10
    assert set(trials) == set(Situation)


def test_keys_that_are_written_all_at_once_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "api_keys.yaml"
    new_keyfile(file)
    file.write_text("owners: [acme]\nkeys:\n")
    texts = add_keys(file, "acme", 3)
    table = load_keys(file)
    keys = {key_id: table.authenticate(text, 0.0) for key_id, text in texts.items()}
    assert {key_id: key and (key.id, key.owner) for key_id, key in keys.items()} == {k: (k, Owner("acme")) for k in texts}
    assert len(texts) == 3
