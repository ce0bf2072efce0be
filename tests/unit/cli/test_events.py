"""``quorumvault events``: the last events, ordered by time, of three files that are being written and rotated."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import yaml
from click.testing import CliRunner, Result

from quorumvault.cli import main
from quorumvault.cli.events import Filters, follow_all, last_of
from quorumvault.server.telemetry.event_file import rotated
from quorumvault.server.telemetry.event_reader import Entry, EventReader
from tests.unit.config.test_cluster import GOOD

ALL = Filters(None, None, ())


def line(second: int, event: str = "tokenize", **more: object) -> bytes:
    return msgspec.json.encode({"ts": f"2025-06-15T15:06:{second:02}.000000Z", "node": "n1", "event": event} | more) + b"\n"


def seconds(entries: list[Entry]) -> list[int]:
    return [int(entry.event.ts[17:19]) for entry in entries]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(GOOD))
    for node in ("n1", "n2"):
        (tmp_path / node).mkdir()
    (tmp_path / "n1" / "events.jsonl").write_bytes(line(1, owner="a") + line(4, "detokenize", owner="b", request_id="r4"))
    (tmp_path / "n2" / "events.jsonl").write_bytes(line(2) + b"no event\n" + line(3, owner="b", items=7) + line(9)[:20])
    return file


def show(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["events", "--config", str(config), *arguments])


def test_events_of_all_nodes_by_time(config: Path) -> None:
    result = show(config, "--json")
    assert result.exit_code == 0
    assert [json.loads(text)["ts"][17:19] for text in result.stdout.splitlines()] == ["01", "02", "03", "04"]
    assert [text.split()[0][17:19] for text in show(config, "-n", "2").stdout.splitlines()] == ["03", "04"]
    assert show(config, "-n", "0").stdout == ""


def test_events_as_text_name_what_they_show(config: Path) -> None:
    text = show(config, "--request-id", "r4").stdout
    assert text == "2025-06-15T15:06:04.000000Z n1 detokenize - request_id=r4 owner=b\n"


def test_filters_go_before_the_number_of_lines(config: Path) -> None:
    assert "items=7" in show(config, "--owner", "b", "--kind", "tokenize", "-n", "1").stdout
    nothing = show(config, "--owner", "nobody")
    assert (nothing.exit_code, nothing.stdout, nothing.stderr) == (0, "", "There is no such event.\n")


def test_a_machine_without_a_log_is_an_error(config: Path) -> None:
    for node in ("n1", "n2"):
        (config.parent / node / "events.jsonl").unlink()
    result = show(config)
    assert result.exit_code == 1
    assert str(config.parent) in result.stderr


def test_older_files_are_read_when_the_newest_has_too_few(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    rotated(path, 2).write_bytes(line(1) + line(2))
    rotated(path, 1).write_bytes(line(3) + line(4))
    path.write_bytes(line(5))
    reader = EventReader(path)
    assert seconds(reader.last(4, ALL.wants)) == [2, 3, 4, 5]
    assert seconds(reader.last(9, ALL.wants)) == [1, 2, 3, 4, 5]
    assert seconds(reader.last(1, lambda event: event.ts < "2025-06-15T15:06:04")) == [3]
    reader.close()


def test_following_sees_whole_lines_once_over_rotations(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    shown: list[Entry] = []

    def append(data: bytes) -> None:
        with path.open("ab") as file:
            file.write(data)

    def rotate() -> None:
        for number in (2, 1):
            if rotated(path, number).exists():
                rotated(path, number).replace(rotated(path, number + 1))
        path.replace(rotated(path, 1))

    def twice_around() -> None:
        for second in (6, 7):
            append(line(second))
            rotate()
        append(line(8))

    steps: list[Callable[[], object]] = [
        lambda: append(line(1) + line(2)[:9]),  # creates the file; the second line is incomplete
        lambda: append(line(2)[9:]),
        lambda: (append(line(3)), rotate()),
        lambda: append(line(4)),
        lambda: (append(line(5)), rotate()),
        twice_around,
        lambda: None,
    ]

    def sleep(_: float) -> None:
        if not steps:
            raise KeyboardInterrupt
        steps.pop(0)()

    assert reader.last(5, ALL.wants) == []
    with pytest.raises(KeyboardInterrupt):
        follow_all([reader], [], ALL, shown.append, sleep)
    reader.close()
    assert seconds(shown) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_three_files_that_are_followed_interleave_by_time(tmp_path: Path) -> None:
    """Each node writes a line a little after the time in it, so n1's event of 6 may be read after n2's event of 7."""
    paths = [tmp_path / f"{node}.jsonl" for node in ("n1", "n2", "n3")]
    readers = [EventReader(path) for path in paths]
    shown: list[Entry] = []
    counts: list[int] = []

    def append(node: int, *at: int) -> None:
        with paths[node - 1].open("ab") as file:
            file.writelines(map(line, at))

    append(1, 1, 4)
    append(2, 2)
    steps: list[Callable[[], object]] = [
        lambda: (append(3, 5), append(2, 7)),
        lambda: (append(1, 6), append(3, 8, 10)),
        lambda: append(2, 9),
        lambda: None,
        lambda: append(1, 11, 13),
        lambda: append(3, 12),
    ]

    def sleep(_: float) -> None:
        counts.append(len(shown))
        if not steps:
            raise KeyboardInterrupt
        steps.pop(0)()

    with pytest.raises(KeyboardInterrupt):
        follow_all(readers, last_of(readers, 2, ALL), ALL, shown.append, sleep)
    assert seconds(shown) == [2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]
    assert counts == [2, 2, 5, 8, 8, 8, 11]
    for reader in readers:
        reader.close()


def test_following_shows_the_last_events_at_once_and_ends_well_on_ctrl_c(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    result = show(config, "--follow", "-n", "2", "--owner", "b")
    assert result.exit_code == 0
    assert [text.split()[0][17:19] for text in result.stdout.splitlines()] == ["03", "04"]
