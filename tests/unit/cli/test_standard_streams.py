"""Standard streams, for which pipes of this process stand in."""

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from quorumvault.cli.standard_streams import ESCAPES, HandleError, Output, Words, descriptor_of, register_escapes


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a non-blocking pipe."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    yield ends
    for end in ends:
        os.close(end)


def test_a_pipe_that_does_not_block_is_waited_for(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sent, got = b"x" * 300_000, bytearray()
    with io.BufferedWriter(Output(writer)) as sink:
        thread = threading.Thread(target=lambda: (sink.write(sent), sink.flush()))
        thread.start()
        os.set_blocking(reader, True)
        while len(got) < len(sent):
            got += os.read(reader, 1 << 16)
        thread.join()
    assert got == sent


def test_the_first_failure_is_told_and_the_rest_goes_nowhere() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        sink = Output(full.fileno())
        with pytest.raises(HandleError, match=r"^standard output: No space left on device$"):
            sink.write(b"x")
        assert sink.write(b"more") == 4
        assert Words(full.fileno(), "wb", closefd=False).write(b"lost") == 4


def test_a_reader_that_is_gone_ends_the_process() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(click.exceptions.Exit) as ended:
        Output(writer).write(b"x")
    os.close(writer)
    assert ended.value.exit_code == 141


def test_what_an_encoding_lacks_is_escaped_as_in_json() -> None:
    sink = io.BytesIO()
    register_escapes()
    text = io.TextIOWrapper(sink, "latin-1", errors=ESCAPES)
    text.write("ö \N{SNOWMAN} \N{GRINNING FACE} \udcf6")
    text.flush()
    assert sink.getvalue() == b"\xf6 \\u2603 \\ud83d\\ude00 \\udcf6"


def test_names_of_open_files(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to("/dev/stdout")
    found = [descriptor_of(Path(name)) for name in ("/dev/stdin", "/dev/fd/1", "/proc/self/fd/2", f"{tmp_path}/log")]
    assert found == [0, 1, 2, 1]
    assert [descriptor_of(path) for path in (tmp_path, Path("1"), Path("-"), Path("/dev/null"))] == [None] * 4
