"""``quorumvault completion``: prints the shell script that completes commands and options with Tab."""

import click
from click.shell_completion import get_completion_class

from quorumvault.cli.options import json_option
from quorumvault.cli.output import print_answer

#: The variable through which the script asks this program; click derives its name from the program's.
_VARIABLE = "_QUORUMVAULT_COMPLETE"


@click.command(
    short_help="Print the completion script for a shell.",
    epilog="""\b
Examples:
  quorumvault completion bash > quorumvault.bash   # then: source quorumvault.bash
  quorumvault completion zsh > _quorumvault        # in a directory of $fpath
  quorumvault completion fish > quorumvault.fish   # in ~/.config/fish/completions""",
)
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
@click.pass_context
def completion(context: click.Context, shell: str, as_json: bool) -> None:
    """Print the script with which SHELL (bash, zsh or fish) completes the commands and options of this program."""
    root, kind = context.find_root(), get_completion_class(shell)
    if kind is None:
        raise click.BadParameter(f"no completion for {shell}", param_hint="SHELL")
    script = kind(root.command, {}, root.info_name or "quorumvault", _VARIABLE).source()
    print_answer({"shell": shell, "script": script}, script, as_json=as_json)
