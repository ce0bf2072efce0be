"""``quorumvault samples``: it writes the package's samples for operators, and never overwrites a changed file."""

import json
from pathlib import Path

from click.testing import CliRunner

from quorumvault.cli import main
from quorumvault.config.cluster import load_cluster
from tests import ROOT


def test_all_samples_are_written_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        done = CliRunner().invoke(main, ["samples", str(tmp_path / "made"), "--json"])
        assert done.exit_code == 0, done.output
    written = {str(path.relative_to(tmp_path / "made")) for path in (tmp_path / "made").rglob("*") if path.is_file()}
    assert written == {str(path.relative_to(ROOT / "conf")) for path in (ROOT / "conf").rglob("*") if path.is_file()}
    assert json.loads(done.stdout)["files"] == [str(tmp_path / "made" / name) for name in sorted(written)]
    assert {"alerts.yml", "cluster.yaml"} <= written
    assert load_cluster(tmp_path / "made" / "cluster.yaml").nodes


def test_a_file_that_was_changed_stops_it_before_it_writes(tmp_path: Path) -> None:
    (tmp_path / "fields.yaml").write_text("fields: [$.mine]\n")
    done = CliRunner().invoke(main, ["samples", str(tmp_path)])
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"{tmp_path / 'fields.yaml'} is there and is not this release's sample" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["fields.yaml"]
