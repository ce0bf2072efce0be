"""The output file of a command: when the command ends, the file is complete or absent."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from quorumvault.cli.options import Decorator, all_of
from quorumvault.cli.output import visible
from quorumvault.cli.standard_streams import descriptor_of
from quorumvault.durable import replacing
from quorumvault.errors import ConfigError
from quorumvault.files import object_store
from quorumvault.files.new_object import writing
from quorumvault.files.sources import printable
from quorumvault.files.urls import Place, Url, UrlError, url_of
from quorumvault.ownership import followed, require_replaceable

STANDARD = Path("-")
_APPEARED: Final = "{} has appeared meanwhile, and nothing is kept of this run: name another one, or give --force to replace it"


class OutputPath(click.Path):
    """A path to write to. A name of standard output, such as /dev/stdout, becomes ``-``: its file is not replaced.

    Names of other open files are refused, since their openers would go on with the replaced file. ``objects``: a URL becomes a
    Url.
    """

    def __init__(self, *, objects: bool = False, **more: Any) -> None:
        super().__init__(path_type=Path, **more)
        self._objects = objects

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            url = url_of(value) if isinstance(value, str) else None
        except UrlError as error:
            self.fail(visible(str(error)), param, ctx)
        if url is not None:
            if not self._objects:
                self.fail(f"{visible(str(url))} is an object, and this goes into a file", param, ctx)
            if not url.is_written_to:
                self.fail(f"{visible(str(url))}: https:// is read only: name a file, or s3://, gs:// or az://", param, ctx)
            return url
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        descriptor = descriptor_of(path)
        if descriptor is None:
            return path
        if descriptor != 1:
            self.fail(f"{path} is a file that is open: name it, or write to standard output and redirect that", param, ctx)
        return STANDARD


def output_options(text: str, *, required: bool = False) -> Decorator:
    """Returns a decorator that adds -o, with ``text`` as its help, and --force: the arguments of ``destination``."""
    return all_of(
        click.option("-o", "--output", required=required, type=OutputPath(), metavar="FILE", help=text),
        click.option("--force", is_flag=True, help="Replace an existing output file."),
    )


@contextlib.contextmanager
def destination(path: Place, *, force: bool, mode: int = 0o600, widest: int = 0o600) -> Iterator[BinaryIO]:
    """Yields a file to write to, which replaces ``path`` when the block succeeds; standard output for ``-``.

    Until then it has no name, or on a file system without such files a hidden one in the same directory, or it is an incomplete
    upload. Raises UsageError if ``path`` exists, or has appeared by the end, unless ``force``; if it is not a regular file, even
    with ``force``, since a device would be replaced by a file; and if another user put it there.

    ``mode`` is the mode of a new file, whatever the umask. A replaced file passes on its owner and its mode, within ``widest``.
    """
    if path == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if isinstance(path, Url):
        with _new_object(path, force=force) as sink:
            yield sink
        return
    target = _target(path)
    if target.exists() and not target.is_file():
        raise click.UsageError(f"{path} is no regular file: write to standard output, and redirect that")
    if target.exists() and not force:
        raise click.UsageError(f"{path} exists: name another file, or give --force to replace it")
    is_made = False
    try:
        with contextlib.ExitStack() as ending:
            try:
                file = ending.enter_context(replacing(target, mode=mode, widest=widest, exclusive=not force))
            except OSError as error:
                raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
            yield file
            is_made = True
    except FileExistsError:
        if not is_made:
            raise
        raise click.UsageError(_APPEARED.format(path)) from None


@contextlib.contextmanager
def still_free(path: Place, *, force: bool) -> Iterator[None]:
    """Raises UsageError if ``path`` appears during the block, before other outputs get their names."""
    yield
    if force or path == STANDARD:
        return
    if object_store.find(path) is not None if isinstance(path, Url) else os.path.lexists(_target(path)):
        raise click.UsageError(_APPEARED.format(visible(printable(path))))


@contextlib.contextmanager
def _new_object(url: Url, *, force: bool) -> Iterator[BinaryIO]:
    if url.is_folder:
        raise click.UsageError(f"{visible(str(url))} is a folder, and there is one output: name the object")
    if not force and object_store.find(url) is not None:
        raise click.UsageError(f"{visible(str(url))} exists: name another object, or give --force to replace it")
    with writing(url, exclusive=not force) as sink:
        yield sink


def _target(path: Path) -> Path:
    try:
        target = followed(path)
        require_replaceable(target)
    except ConfigError as error:
        raise click.UsageError(visible(str(error))) from None
    return target
