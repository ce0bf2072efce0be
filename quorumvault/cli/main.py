"""The command ``quorumvault``: its commands, and the one place that turns errors into messages and exit codes.

Exit codes: 0 ok; 1 error; 2 wrong usage, or a stream or disk that cannot be used; 3 no quorum (for ``serve``: storage failed);
4 partial (some tokens not found; a key is revoked, but this host's key file does not say so); 130 Ctrl-C; 141 the reader of
standard output is gone; 128 + its number for another signal.
A command returns its exit code, or None for 0, and raises on every failure.
"""

import difflib
import errno
import importlib
import os
import signal
import sys
from typing import Any, NoReturn

import click

from quorumvault.cli.output import say, visible
from quorumvault.cli.pyarrow_setup import prepare_pyarrow
from quorumvault.cli.standard_streams import HandleError, take_over
from quorumvault.config.process_memory import forbid_core_dumps
from quorumvault.errors import BadArgument, Draining, NoQuorum, QuorumVaultError, StorageFailed, TokensNotFound, Unauthenticated

ERROR, USAGE, NO_QUORUM, STORAGE_FAILED, PARTIAL = 1, 2, 3, 3, 4
#: The shell's exit code of a process that a signal ended is this plus the signal's number.
BY_SIGNAL = 128


class Interrupted(click.Abort):
    """A signal has ended the command."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.exit_code = BY_SIGNAL + number


#: The commands by purpose. A command is loaded when it is used or listed, so that it pays only for its own imports.
_SECTIONS = {
    "Use": {
        "tokenize": "quorumvault.cli.files",
        "detokenize": "quorumvault.cli.files",
        "retokenize": "quorumvault.cli.files",
        "migrate": "quorumvault.cli.migrate",
        "suggest": "quorumvault.cli.suggest",
        "census": "quorumvault.cli.census",
        "epoch": "quorumvault.cli.status",
        "rotate": "quorumvault.cli.status",
    },
    "Operate": {
        "init": "quorumvault.cli.init",
        "serve": "quorumvault.cli.serve",
        "dev": "quorumvault.cli.dev",
        "pack": "quorumvault.cli.pack",
        "keys": "quorumvault.cli.keys",
        "certs": "quorumvault.cli.certs",
        "backup": "quorumvault.cli.backup",
        "restore": "quorumvault.cli.restore",
        "repair": "quorumvault.cli.admin",
        "recover": "quorumvault.cli.recover",
        "admin": "quorumvault.cli.admin",
        "samples": "quorumvault.cli.samples",
    },
    "Inspect": {
        "status": "quorumvault.cli.status",
        "wait": "quorumvault.cli.status",
        "events": "quorumvault.cli.events",
        "verify": "quorumvault.cli.admin",
        "completion": "quorumvault.cli.completion",
    },
}
_COMMANDS = {name: module for section in _SECTIONS.values() for name, module in section.items()}

_EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (click.UsageError, USAGE),
    (HandleError, USAGE),
    (BadArgument, USAGE),
    (NoQuorum, NO_QUORUM),
    (Draining, NO_QUORUM),
    (StorageFailed, STORAGE_FAILED),
    (TokensNotFound, PARTIAL),
)
#: Errors that mean that the place named for an output cannot take it.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _Text(click.types.StringParamType):
    """An argument that is text, not a path. Its bytes are UTF-8, whatever the locale says."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = super().convert(value, param, ctx)
        try:
            text.encode()
        except UnicodeEncodeError:
            try:
                text = os.fsencode(text).decode()
            except UnicodeDecodeError:
                self.fail(f"'{visible(os.fsencode(text).decode(errors='backslashreplace'))}' is no UTF-8", param, ctx)
        return text


def _require_text(command: click.Command) -> None:
    """Makes click check every text argument, so that no command has to."""
    for parameter in command.params:
        if parameter.type is click.STRING:
            parameter.type = _TEXT
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _require_text(each)


_TEXT = _Text()


class Commands(click.Group):
    """A group that loads its commands lazily and reports all errors alike."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, names in _SECTIONS.items():
            commands = [(name, command) for name in names if (command := self.get_command(ctx, name)) is not None]
            with formatter.section(section):
                formatter.write_dl([(name, command.get_short_help_str(formatter.width)) for name, command in commands])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name)
        _require_text(command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            ctx.fail(f"There is no command {args[0]!r}{f'; did you mean {near[0]}?' if near else '.'}")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        if not args and kwargs.get("args") is None:  # the process is this command's alone: it may hold keys, values and secrets
            take_over()
            forbid_core_dumps()
            prepare_pyarrow()
        kwargs["standalone_mode"] = False
        kwargs.setdefault("prog_name", "quorumvault")
        try:
            code = super().main(*args, **kwargs)
            sys.stdout.flush()  # a failed write is the command's error, not one of Python's exit
        except click.exceptions.Exit as gone:
            code = gone.exit_code
        except (click.ClickException, click.Abort, QuorumVaultError, OSError) as error:
            say(f"quorumvault: {_words(error)}", err=True)
            code = _exit_code(error)
        sys.exit(code)


def _exit_code(error: Exception) -> int:
    if isinstance(error, click.Abort):  # click's own Abort means Ctrl-C
        return error.exit_code if isinstance(error, Interrupted) else BY_SIGNAL + signal.SIGINT
    if isinstance(error, OSError) and error.errno in _FULL:
        return USAGE
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), ERROR)


def _words(error: Exception) -> str:
    match error:
        case click.Abort():
            return "interrupted"
        case click.UsageError(ctx=click.Context() as context):
            return f"{error.format_message()}\nSee: {context.command_path} --help"
        case click.ClickException():
            return error.format_message()
        case BadArgument():
            return f"--{error}"  # the client's arguments have the names of their options
        case Unauthenticated() if error.asked:
            return f"{visible(str(error))} (the key is that of --key-file, else of QUORUMVAULT_API_KEY)"
        case OSError(filename=None):
            return error.strerror or type(error).__name__
        case OSError():
            return visible(f"{error.filename}: {error.strerror}")
        case _:
            return visible(str(error))


@click.group(
    "quorumvault",
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Each command has an example in its own --help.",
)
@click.version_option(package_name="quorumvault", message="%(prog)s %(version)s")
def main() -> None:
    """A replicated token vault: three nodes replace identifiers with tokens, and return them to authorized clients."""
