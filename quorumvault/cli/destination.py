"""Where a command writes a file: whole and under its name at the end, or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

STANDARD = Path("-")


@contextlib.contextmanager
def destination(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """A file to write to that takes the place of ``path`` when the block ends well; standard output for ``-``.

    Until then it is a hidden file in the same directory. Raises UsageError if ``path`` exists, unless ``force``; and for what is
    no regular file in any case, since a device would be replaced by a file.
    """
    if path == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise click.UsageError(f"{path} is no regular file: write to standard output, and redirect that")
    if target.exists() and not force:
        raise click.UsageError(f"{path} exists: name another file, or give --force to replace it")
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
