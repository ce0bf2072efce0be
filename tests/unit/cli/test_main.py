"""What all commands have in common: help with an example, machine-readable output, and errors as one line and an exit code."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from quorumvault.cli import main
from quorumvault.cli.main import ERROR, NO_QUORUM, PARTIAL, USAGE
from quorumvault.errors import ConfigError, Draining, NoQuorum, StorageFailed, TokensNotFound, Unauthenticated
from tests.rigs.made import made


def all_commands() -> Iterator[tuple[str, ...]]:
    with click.Context(main) as context:
        for name in main.list_commands(context):
            command = main.get_command(context, name)
            if isinstance(command, click.Group):
                yield from ((name, subcommand) for subcommand in command.commands)
            else:
                yield (name,)


def test_help_has_every_command_in_its_section() -> None:
    short, long = (CliRunner().invoke(main, [option]).stdout for option in ("-h", "--help"))
    assert short == long
    sections = re.split(r"\n(?=\w+:\n)", long)[2:]
    assert [section.partition(":")[0] for section in sections] == ["Use", "Operate", "Inspect"]
    assert re.findall(r"^  (\w+)  ", "\n".join(sections), re.MULTILINE) == main.list_commands(click.Context(main))


@pytest.mark.parametrize("command", list(all_commands()), ids=" ".join)
def test_every_command_has_an_example_and_json(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*command, "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"quorumvault {' '.join(command)}" in result.output.split("Example")[1]
    assert "--json" in result.output


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("cluster.yaml", "nodes", "is missing"), ERROR),
        (Unauthenticated("no such key"), ERROR),
        (NoQuorum("only n1 answered"), NO_QUORUM),
        (Draining("n1 is about to stop"), NO_QUORUM),
        (StorageFailed("the disk is full"), 3),
        (TokensNotFound((1,), 3), PARTIAL),
        (click.BadParameter("no", param_hint="--x"), USAGE),
        (OSError(28, "No space left on device", "out.csv"), USAGE),
        (OSError(5, "Input/output error", "out.csv"), ERROR),
        (click.Abort(), 130),
    ],
)
def test_an_error_is_a_line_and_an_exit_code(error: Exception, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(main, "get_command", lambda context, name: failing)
    result = CliRunner().invoke(main, ["failing"])
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith("quorumvault: ")
    assert result.stderr.count("\n") == (2 if isinstance(error, click.UsageError) else 1)


def test_a_usage_error_says_where_help_is() -> None:
    result = CliRunner().invoke(main, ["rotate", "--from", "0"])
    assert result.exit_code == USAGE
    assert result.stderr.startswith("quorumvault: Invalid value for '--from'")
    assert result.stderr.endswith("See: quorumvault rotate --help\n")


def test_serve_names_file_and_key_of_a_bad_configuration(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("cluster_ids: c1\n")
    command = [sys.executable, "-m", "quorumvault", "serve", "--config", str(file), "--node", "n1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == ERROR
    assert done.stderr == f"quorumvault: {file}: cluster_ids: unknown key; did you mean cluster_id?\n"
    assert done.stdout == ""


def test_the_configuration_file_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = {"QUORUMVAULT_CONFIG": str(tmp_path / "variable.yaml")}
    result = CliRunner().invoke(main, ["keys", "list"], env=named)
    assert "variable.yaml" in result.stderr
    result = CliRunner().invoke(main, ["keys", "list", "--config", str(tmp_path / "flag.yaml")], env=named)
    assert "flag.yaml" in result.stderr
    monkeypatch.chdir(tmp_path)
    assert f"{tmp_path}/cluster.yaml: " in CliRunner().invoke(main, ["keys", "list"]).stderr


@pytest.mark.parametrize("command", [("repair",), ("verify",), ("admin", "status"), ("admin", "stop"), ("backup", "-o", "new")])
def test_a_node_is_named_the_same_way_by_every_command(tmp_path: Path, command: tuple[str, ...]) -> None:
    made(tmp_path)
    place, file = str(tmp_path), str(tmp_path / "cluster.yaml")
    by_directory, by_file = (*command, place), (*command, "--config", file)
    ways: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
        (by_directory, {"QUORUMVAULT_CONFIG": str(tmp_path)}),
        (by_file, {}),
        (command, {"QUORUMVAULT_CONFIG": file}),
    )
    for arguments, environment in ways:
        told = CliRunner().invoke(main, [*arguments, "--node", "n2"], env=environment)
        assert (told.exit_code, "n2/admin.sock: " in told.stderr) == (1, True)
    told = CliRunner().invoke(main, [*by_directory, "--node", "n4"])
    assert (told.exit_code, "no node 'n4' in this cluster" in told.stderr) == (1, True)
    both = CliRunner().invoke(main, [*by_directory, "--config", file, "--node", "n2"])
    assert (both.exit_code, "name the cluster once" in both.stderr) == (2, True)


def test_a_command_does_not_load_pandas() -> None:
    """pyarrow would load pandas, which takes half of the startup time of a command on a Parquet file."""
    program = "import contextlib, sys, pyarrow; from quorumvault.cli import main\n"
    program += "with contextlib.suppress(SystemExit): main()\n"
    program += "pyarrow.array([1]); print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[1:] == ["False"]
