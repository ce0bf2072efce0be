"""The bytes of a backup are read as they were written, and anything lost, flipped, moved or added is detected."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.errors import BackupDamaged
from quorumvault.server.backup import format as backup_format

HEADER = backup_format.Header("c1", 3, "s1", "0123456789abcdef", "2026-01-01T00:00:00.000+00:00", "1.0")
KEY = bytes(32)
pieces = st.lists(st.dictionaries(st.binary(max_size=5), st.binary(max_size=9), min_size=1, max_size=3), max_size=4)


def parts(contents: list[dict[bytes, bytes]]) -> list[bytes]:
    """A whole backup, message by message."""
    writer = backup_format.Writer()
    written = [writer.write(HEADER)]
    written += [writer.write(backup_format.Piece(list(content), list(content.values()))) for content in contents]
    counts = backup_format.Counts(sum(map(len, contents)), 0, 0, 0)
    return [*written, writer.write(backup_format.Trailer(counts, ["n1", "n2"], backup_format.seal(KEY, writer.digest)))]


def contents_of(backup: bytes) -> tuple[backup_format.Header, list[dict[bytes, bytes]], backup_format.Trailer]:
    reader = backup_format.Reader(io.BytesIO(backup), "FILE")
    found = []
    raw = reader.start
    while isinstance((frame := reader.next()).message, backup_format.Piece):
        assert frame.offset == len(raw)
        raw += frame.raw
        found.append(dict(zip(frame.message.keys, frame.message.values, strict=True)))
    assert raw + frame.raw == backup
    assert backup_format.is_sealed(KEY, frame.message.seal, frame.before)
    return reader.header, found, frame.message


@given(pieces)
def test_what_was_written_is_read(contents: list[dict[bytes, bytes]]) -> None:
    header, found, trailer = contents_of(b"".join(parts(contents)))
    assert (header, found, trailer.counts.records) == (HEADER, contents, sum(map(len, contents)))


WHOLE = parts([{b"k1": b"v1", b"k2": b"v2"}, {b"k3": bytes(40)}, {b"k4": b"v4"}])
BACKUP = b"".join(WHOLE)


def test_any_truncation_is_noticed() -> None:
    for length in range(len(BACKUP)):
        with pytest.raises(BackupDamaged, match=r"^FILE: "):
            contents_of(BACKUP[:length])


def test_any_flipped_bit_is_noticed() -> None:
    for place in range(len(BACKUP)):
        for bit in range(8):
            damaged = bytearray(BACKUP)
            damaged[place] ^= 1 << bit
            with pytest.raises(BackupDamaged, match=r"^FILE: "):
                contents_of(bytes(damaged))


@pytest.mark.parametrize(
    "order",
    [[0, 2, 3, 4], [0, 2, 1, 3, 4], [0, 1, 1, 2, 3, 4], [0, 1, 2, 3, 4, 4], [0, 1, 2, 3, 4, 1], [0, 0, 1, 2, 3, 4], [0, 4]],
    ids=str,
)
def test_messages_that_are_whole_by_themselves_make_no_other_backup(order: list[int]) -> None:
    with pytest.raises(BackupDamaged):
        contents_of(b"".join(WHOLE[number] for number in order))


def test_damage_is_told_with_its_place() -> None:
    damaged = bytearray(BACKUP)
    damaged[len(WHOLE[0]) + len(WHOLE[1]) + 10] ^= 1
    with pytest.raises(BackupDamaged, match=rf"FILE: at byte {len(WHOLE[0]) + len(WHOLE[1])}: .*a checksum does not fit"):
        contents_of(bytes(damaged))


def test_no_length_takes_the_memory() -> None:
    asked: list[int] = []

    class Endless:
        def read(self, size: int, /) -> bytes:
            asked.append(size)
            return BACKUP[:9] if size == 9 else b"\xff" * size

    with pytest.raises(BackupDamaged, match="no message has that length"):
        backup_format.Reader(Endless(), "FILE")
    assert max(asked) < 10


def of(*messages: backup_format.AnyMessage) -> bytes:
    writer = backup_format.Writer()
    return b"".join(map(writer.write, messages))


def test_one_that_was_broken_off_says_why() -> None:
    with pytest.raises(backup_format.Broken, match="not whole: n2 is gone") as broken:
        contents_of(of(HEADER, backup_format.Piece([b"k"], [b"v"]), backup_format.BrokenOff("no-quorum", "n2 is gone")))
    assert (broken.value.code, broken.value.why) == ("no-quorum", "n2 is gone")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (BACKUP + b"\0", "something follows"),
        (b"", "this is no backup"),
        (b"QVBACK", "this is no backup"),
        (b"id,name\n1,a\n", "this is no backup"),
        (BACKUP[:8], "this is no backup"),
        (BACKUP[:8] + b"\2" + BACKUP[9:], "expected a backup of format 1, found 2"),
        (of(backup_format.Piece([b"k"], [b"v"])), "does not belong there"),
        (of(HEADER, HEADER), "does not belong there"),
    ],
)
def test_what_is_no_whole_backup_is_told(data: bytes, words: str) -> None:
    with pytest.raises(BackupDamaged, match=words):
        contents_of(data)


def test_another_secret_makes_another_seal() -> None:
    assert not backup_format.is_sealed(KEY, backup_format.seal(bytes(31) + b"\1", b"digest"), b"digest")
    assert not backup_format.is_sealed(KEY, backup_format.seal(KEY, b"digest"), b"another")


def test_the_repr_of_a_piece_shows_no_key_and_no_value() -> None:
    assert repr(backup_format.Piece([b"secret"], [b"value"])) == "<Piece of 1>"
