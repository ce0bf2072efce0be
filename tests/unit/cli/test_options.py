"""Options that many commands share, and the client that they make."""

import click
import pytest
from click.testing import CliRunner, Result

from quorumvault.cli.options import Connection, bulk_connection_options
from quorumvault.client import Client, ClientPolicy
from tests.rigs.vault import key_text


def asked(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[Result, list[ClientPolicy]]:
    """The policies of the clients that a command with these arguments opens."""
    policies: list[ClientPolicy] = []
    begin = Client.__init__

    def noted(client: Client, *given: object, policy: ClientPolicy, **options: object) -> None:
        policies.append(policy)
        begin(client, *given, policy=policy, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Client, "__init__", noted)

    @click.command()
    @bulk_connection_options
    def command(connection: Connection) -> None:
        connection.open().close()

    return CliRunner().invoke(command, arguments, env={"QUORUMVAULT_API_KEY": key_text("clinic")}), policies


@pytest.mark.parametrize(
    ("arguments", "policy"),
    [
        ((), ClientPolicy()),
        (("--batch", "500"), ClientPolicy(batch=500)),
        (("--patience", "90"), ClientPolicy(request=90.0)),
        (("--patience", "10m", "--batch", "1"), ClientPolicy(request=600.0, batch=1)),
    ],
)
def test_batch_and_patience_are_the_clients(
    arguments: tuple[str, ...], policy: ClientPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, policies = asked(monkeypatch, *arguments)
    assert (result.exit_code, policies) == (0, [policy])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--batch", "0"), "0 is not in the range x>=1"),
        (("--patience", "0"), "expected a time like 90s or 10m"),
        (("--patience", "soon"), "expected a time like 90d, 24h, 30m or 45s"),
    ],
)
def test_what_is_no_pace_is_refused(arguments: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result, policies = asked(monkeypatch, *arguments)
    assert (result.exit_code, policies) == (2, [])
    assert words in result.output
