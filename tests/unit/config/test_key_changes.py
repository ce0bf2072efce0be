"""Keys that expire: how long a new key lives, and what happens to two keys when one replaces the other."""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from quorumvault.config import key_changes
from quorumvault.config.api_keys import KeyTable, Rates, load_keys, read_keyfile
from quorumvault.config.key_changes import KeyUnknown, NewKey, Rotated, create_key, new_keyfile, revoke_key, rotate_key
from quorumvault.errors import ConfigError, Refused

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "api_keys.yaml"
    new_keyfile(file)
    return file


def create(path: Path, life: timedelta | None = None, **options: Any) -> NewKey:
    expires = None if life is None else NOON + life
    return create_key(path, "clinic", now=NOON, entropy=secrets.token_bytes, expires=expires, new_owner=True, **options)


def rotate(path: Path, key_id: str, now: datetime = NOON, grace: timedelta = HOUR, life: timedelta | None = None) -> Rotated:
    return rotate_key(path, key_id, now=now, entropy=secrets.token_bytes, grace=grace, life=life)


def taken(path: Path, key: NewKey, now: datetime) -> bool:
    return load_keys(path).authenticate(key.text, now.timestamp()) is not None


def test_a_key_is_taken_until_its_end(path: Path) -> None:
    """Proves: keys end."""
    ends, never = create(path, DAY), create(path)
    assert [taken(path, ends, NOON + at) for at in (timedelta(), DAY - timedelta(seconds=1), DAY, 2 * DAY)] == [1, 1, 0, 0]
    assert taken(path, never, NOON + 100_000 * DAY)
    table = load_keys(path)
    key = table.authenticate(ends.text, NOON.timestamp())
    assert key is not None
    assert [table.has(key, (NOON + at).timestamp()) for at in (timedelta(), DAY)] == [True, False]


def test_a_rotated_key_is_good_for_its_grace_and_the_new_one_may_do_the_same(path: Path) -> None:
    """Proves: keys end."""
    former = create(path, allow=("rotate", "derive"), note="nightly", rates=Rates(5, 6, 7))
    before = load_keys(path).authenticate(former.text, 0.0)
    assert before is not None
    rotated = rotate(path, former.id, grace=HOUR)
    assert [taken(path, former, NOON + at) for at in (timedelta(), HOUR - timedelta(seconds=1), HOUR)] == [1, 1, 0]
    assert taken(path, rotated.key, NOON + 10_000 * DAY)
    table = load_keys(path)
    assert [table.has(before, (NOON + at).timestamp()) for at in (HOUR / 2, HOUR)] == [True, False]  # a request under way
    old, new = read_keyfile(path).keys
    assert (old.successor, new.successor, new.id) == (new.id, None, rotated.key.id)
    assert (new.owner, new.allow, new.note, new.rates) == (old.owner, old.allow, old.note, old.rates)
    assert (new.sha256 != old.sha256, new.created, new.expires) == (True, "2025-03-01T12:00:00+00:00", None)


def test_the_new_key_lives_as_long_as_the_former_was_to_live(path: Path) -> None:
    former = create(path, 90 * DAY)
    later = NOON + 80 * DAY
    rotated = rotate(path, former.id, now=later, grace=30 * DAY)
    assert rotated.entry.expires == later + 90 * DAY
    assert rotated.former.expires == NOON + 90 * DAY  # a grace period does not extend the life of the old key
    assert rotate(path, rotated.key.id, now=later, life=7 * DAY).entry.expires == later + 7 * DAY


def test_a_key_that_is_no_more_is_not_rotated_and_none_twice(path: Path) -> None:
    ended, revoked, rotated = create(path, HOUR), create(path), create(path)
    revoke_key(path, revoked.id, now=NOON)
    successor = rotate(path, rotated.id).key.id
    before = path.read_bytes()
    for key, now, why in (
        (ended.id, NOON + HOUR, "in force no more"),
        (revoked.id, NOON, "in force no more"),
        (rotated.id, NOON, f"rotated already, to {successor}"),
    ):
        with pytest.raises(Refused, match=why):
            rotate(path, key, now=now)
    with pytest.raises(KeyUnknown):
        rotate(path, "nobody")
    assert path.read_bytes() == before


@pytest.mark.parametrize("created", ["", "last week", "2025-03-01T12:00:00"])
def test_a_life_that_cannot_be_told_has_to_be_given(path: Path, created: str) -> None:
    key = create(path, DAY)
    path.write_text(path.read_text().replace("'2025-03-01T12:00:00+00:00'", f"'{created}'"))
    with pytest.raises(Refused, match="--expires"):
        rotate(path, key.id)
    assert rotate(path, key.id, life=DAY).entry.expires == NOON + DAY


@pytest.mark.parametrize("expires", ["2025-05-30", "'2025-05-30T09:00:00'", "soon", "5"])
def test_an_end_is_a_time_with_its_offset(path: Path, expires: str) -> None:
    key = create(path, DAY)
    text = path.read_text()
    path.write_text(text.replace("expires: '2025-03-02T12:00:00Z'", f"expires: {expires}"))
    assert path.read_text() != text
    with pytest.raises(ConfigError, match=r"keys\[0\]\.expires: expected a time with its offset"):
        load_keys(path)
    assert key.id


def test_an_end_is_in_the_fingerprint_and_none_is_not(path: Path) -> None:
    key = create(path)
    before = load_keys(path).fingerprint
    rotate(path, key.id)
    assert load_keys(path).fingerprint != before


def test_keys_revoked_in_the_file_are_told_and_others_taken_out(path: Path) -> None:
    kept, revoked = create(path), create(path)
    revoke_key(path, revoked.id, now=NOON)
    table = load_keys(path)
    assert table.revoked == {revoked.id}
    without = table.without({kept.id, "unheard"})
    assert (without.authenticate(kept.text, 0.0), without.revoked) == (None, frozenset({revoked.id}))
    assert without.fingerprint == KeyTable(table.owners, []).fingerprint


_real_rotate = key_changes.rotate_key


def _without_grace(path: Path, key_id: str, *, grace: timedelta, **options: Any) -> Rotated:
    return _real_rotate(path, key_id, grace=timedelta(), **options)


def _with_endless_grace(path: Path, key_id: str, *, grace: timedelta, **options: Any) -> Rotated:
    return _real_rotate(path, key_id, grace=10_000 * DAY, **options)


def _without_ends(self: KeyTable, text: str, now: float) -> Any:
    return _real_authenticate(self, text, 0.0)


_real_authenticate = KeyTable.authenticate


@pytest.mark.parametrize(
    ("owner", "name", "instead"),
    [
        (key_changes, "rotate_key", _without_grace),
        (key_changes, "rotate_key", _with_endless_grace),
        (KeyTable, "authenticate", _without_ends),
    ],
)
def test_an_end_or_a_grace_that_is_ignored_is_noticed(path: Path, owner: object, name: str, instead: Callable[..., Any]) -> None:
    with mock.patch.object(owner, name, instead):
        former = create(path)
        key_changes.rotate_key(path, former.id, now=NOON, entropy=secrets.token_bytes, grace=HOUR)
        found = [taken(path, former, NOON + at) for at in (HOUR / 2, HOUR)]
    assert found != [True, False]
