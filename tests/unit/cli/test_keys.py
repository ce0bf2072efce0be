"""``quorumvault keys``: the key is shown once, the file has its hash, and the list shows neither."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from quorumvault.cli import main
from quorumvault.config.api_keys import Rates, load_keys, new_keyfile
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
    found = load_keys(config.parent / "api_keys.yaml").authenticate(text)
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
    revoked = json.loads(keys(config, "revoke", made["id"], "--json").stdout)
    assert json.loads(keys(config, "list", "--json").stdout)["keys"][0]["revoked"] == revoked["revoked"]
    assert load_keys(config.parent / "api_keys.yaml").authenticate(made["key"]) is None


def test_rates_are_told_apart_by_their_units_and_listed(config: Path) -> None:
    given = ["--allow", "derive", "--rate", "2.5/s", "--values", "1000000/d", "--values", "1000/s"]
    text = keys(config, "create", "--owner", "clinic", "--new-owner", *given).stdout.strip()
    key = load_keys(config.parent / "api_keys.yaml").authenticate(text)
    assert key is not None
    assert (key.allow, key.rates) == (frozenset({"derive"}), Rates(2.5, 1000, 1_000_000))
    line = keys(config, "list").stdout.splitlines()[1]
    assert line.split("\t")[2:4] == ["derive", "2.5 requests/s, 1000 values/s, 1000000 values/d"]


def test_a_list_in_a_pipe_is_separated_by_tabs(config: Path) -> None:
    keys(config, "create", "--owner", "clinic", "--new-owner", "--note", "nightly load")
    heading, line = keys(config, "list").stdout.splitlines()
    assert heading.split("\t") == ["id", "owner", "allow", "rates", "created", "revoked", "note"]
    assert line.split("\t")[1:3] == ["clinic", "tokenize,detokenize"]
    assert line.endswith("\t\tnightly load")
