"""``quorumvault samples``: copies the files that operators start from out of the package."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

import click

from quorumvault.cli.options import json_option
from quorumvault.cli.output import print_answer
from quorumvault.errors import Refused


@click.command(
    short_help="Write sample files: configuration, alerts, dashboard, unit, containers.",
    epilog="\b\nExample:\n  quorumvault samples quorumvault-samples",
)
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@json_option
def samples(directory: Path, as_json: bool) -> None:
    """Write this release's sample files into DIR, which is created if it is missing.

    The samples are the configuration with a comment on every setting, Prometheus rules, a Grafana dashboard, a systemd unit, and
    the files for containers. If a file exists with other content, the command stops before it writes anything. No sample contains
    a secret.
    """
    wanted = {directory / name: sample.read_bytes() for name, sample in _samples()}
    changed = [path for path, content in wanted.items() if path.exists() and path.read_bytes() != content]
    if changed:
        raise Refused(f"{changed[0]} is there and is not this release's sample: name another directory, or remove it")
    for path, content in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(content)
    words = "\n".join(str(path) for path in wanted)
    print_answer({"files": [str(path) for path in wanted]}, words, as_json=as_json)


def _samples() -> Iterator[tuple[PurePosixPath, Traversable]]:
    """Yields each sample with its path below the directory, in order."""
    waiting = [(PurePosixPath(), resources.files("quorumvault").joinpath("samples"))]
    while waiting:
        place, found = waiting.pop()
        if found.is_file():
            yield place, found
        else:
            waiting += sorted(((place / each.name, each) for each in found.iterdir()), key=lambda pair: pair[0], reverse=True)
