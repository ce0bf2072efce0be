"""``quorumvault keys``: the key is shown once, the file has its hash, and the list shows neither."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from quorumvault.cli import main
from quorumvault.config.api_keys import Rates, load_keys
from quorumvault.config.key_changes import new_keyfile
from tests.unit.config.test_cluster import GOOD


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(GOOD))
    new_keyfile(tmp_path / "api_keys.yaml")
    return file


def keys(config: Path, command: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["keys", command, "--config", str(config), *arguments])


def test_a_new_key_is_the_only_line_on_standard_output(config: Path) -> None:
    result = keys(config, "create", "--owner", "clinic", "--new-owner")
    assert result.exit_code == 0
    (text,) = result.stdout.splitlines()
    found = load_keys(config.parent / "api_keys.yaml").authenticate(text, 0.0)
    assert found is not None
    assert (found.owner.name, found.allow) == ("clinic", frozenset({"tokenize", "detokenize"}))
    assert "SIGHUP" in result.stderr
    assert text not in result.stderr
    assert text not in (config.parent / "api_keys.yaml").read_text()


BAD_RATES = [["--rate", rate] for rate in ("0", "5/d", "nan", "-1/s")]
BAD_RATES += [["--values", values] for values in ("5", "5/h", "0/s", "/s", "inf/d")] + [["--values", "5/s", "--values", "6/s"]]


@pytest.mark.parametrize("arguments", [["--allow", "tokenize,fly"], ["--allow", ""], *BAD_RATES])
def test_bad_options_are_usage_errors(config: Path, arguments: list[str]) -> None:
    assert keys(config, "create", "--owner", "clinic", "--new-owner", *arguments).exit_code == 2


def test_create_list_and_revoke_for_machines(config: Path) -> None:
    arguments = ["--new-owner", "--allow", "rotate, tokenize", "--note", "nightly", "--rate", "50", "--values", "1000/d"]
    made = json.loads(keys(config, "create", "--owner", "clinic", *arguments, "--json").stdout)
    assert (made["owner"], made["allow"]) == ("clinic", ["rotate", "tokenize"])
    listing = keys(config, "list", "--json").stdout
    assert made["key"] not in listing
    (entry,) = json.loads(listing)["keys"]
    assert (entry["id"], entry["note"], entry["rate"], entry["revoked"]) == (made["id"], "nightly", 50, None)
    assert (entry["values_per_second"], entry["values_per_day"]) == (None, 1000)
    assert keys(config, "revoke", made["id"]).exit_code == 1  # no node runs here, so only the file records it
    (entry,) = json.loads(keys(config, "list", "--json").stdout)["keys"]
    assert datetime.fromisoformat(entry["revoked"]).tzinfo is UTC
    assert entry["revoked_in_cluster"] is None
    assert load_keys(config.parent / "api_keys.yaml").authenticate(made["key"], 0.0) is None


BAD_TIMES = ["", "90", "d", "-1d", "1.5d", "1w", "36501d", "99999999d", "1d1h"]


@pytest.mark.parametrize(
    "arguments", [["create", "--owner", "clinic", "--new-owner", "--expires"], ["rotate", "3fq7", "--grace"]]
)
@pytest.mark.parametrize("time", BAD_TIMES)
def test_a_time_is_a_number_with_its_unit(config: Path, arguments: list[str], time: str) -> None:
    assert keys(config, *arguments, time).exit_code == 2


def test_a_key_that_ends_and_the_one_that_replaces_it(config: Path) -> None:
    assert keys(config, "create", "--owner", "clinic", "--new-owner", "--expires", "0d").exit_code == 2
    made = json.loads(keys(config, "create", "--owner", "clinic", "--new-owner", "--expires", "90d", "--json").stdout)
    (entry,) = json.loads(keys(config, "list", "--json").stdout)["keys"]
    created, expires = (datetime.fromisoformat(entry[name]) for name in ("created", "expires"))
    assert (expires - created, datetime.fromisoformat(made["expires"])) == (timedelta(days=90), expires)
    rotated = keys(config, "rotate", made["id"], "--grace", "24h")
    (text,) = rotated.stdout.splitlines()
    _, new, _ = text.split("_")
    assert f"replaces {made['id']}, which is good until " in rotated.stderr
    assert text not in rotated.stderr
    heading, old, young = (line.split("\t") for line in keys(config, "list").stdout.splitlines())
    at = heading.index("expires")
    assert old[at].endswith(f"+00:00, then {new}")
    assert datetime.fromisoformat(young[at]) - datetime.fromisoformat(young[heading.index("created")]) == timedelta(days=90)
    again = keys(config, "rotate", made["id"], "--grace", "1h", "--json")
    assert (again.exit_code, again.stdout) == (1, "")
    answer = json.loads(keys(config, "rotate", new, "--grace", "0s", "--expires", "1h", "--json").stdout)
    assert (answer["owner"], answer["replaces"]["id"]) == ("clinic", new)
    assert load_keys(config.parent / "api_keys.yaml").authenticate(text, datetime.now(UTC).timestamp()) is None


def test_rates_are_told_apart_by_their_units_and_listed(config: Path) -> None:
    given = ["--allow", "derive", "--rate", "2.5/s", "--values", "1000000/d", "--values", "1000/s"]
    text = keys(config, "create", "--owner", "clinic", "--new-owner", *given).stdout.strip()
    key = load_keys(config.parent / "api_keys.yaml").authenticate(text, 0.0)
    assert key is not None
    assert (key.allow, key.rates) == (frozenset({"derive"}), Rates(2.5, 1000, 1_000_000))
    line = keys(config, "list").stdout.splitlines()[1]
    assert line.split("\t")[2:4] == ["derive", "2.5 requests/s, 1000 values/s, 1000000 values/d"]


def test_a_list_in_a_pipe_is_separated_by_tabs(config: Path) -> None:
    keys(config, "create", "--owner", "clinic", "--new-owner", "--note", "nightly load")
    heading, line = keys(config, "list").stdout.splitlines()
    assert heading.split("\t") == ["id", "owner", "allow", "rates", "created", "expires", "revoked", "note"]
    assert line.split("\t")[1:3] == ["clinic", "tokenize,detokenize"]
    assert line.endswith("\t\t\tnightly load")
