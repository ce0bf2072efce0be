"""API keys: made once and shown once, found by their text alone, revoked for good, and never lost to two concurrent changes."""

import hashlib
import hmac
import re
import secrets
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.config.api_keys import KeyTable, Rates, load_keys, read_keyfile
from quorumvault.config.key_changes import NewKey, create_key, new_keyfile, revoke_key
from quorumvault.errors import ConfigError, Refused
from quorumvault.model import Owner
from tests import ROOT
from tests.rigs.vault import CLINIC, KEYS, LAB, api_key, key_text

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
HASH = "ab" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "api_keys.yaml"
    new_keyfile(file)
    return file


def create(path: Path, owner: str = "clinic", **options: object) -> NewKey:
    return create_key(path, owner, now=NOON, entropy=secrets.token_bytes, new_owner=True, **options)  # type: ignore[arg-type]


def test_a_new_key_is_what_authenticates_and_only_its_hash_is_in_the_file(path: Path) -> None:
    key = create(path, note="nightly load", rates=Rates(5))
    found = load_keys(path).authenticate(key.text, 0.0)
    assert found is not None
    assert (found.id, found.owner, sorted(found.allow), found.rates) == (key.id, CLINIC, ["detokenize", "tokenize"], Rates(5))
    text = path.read_text()
    assert re.fullmatch(r"qvk_[a-z2-7]{8}_[a-z2-7]{32}", key.text)
    assert key.text.startswith(f"qvk_{key.id}_")
    assert key.text.split("_")[2] not in text
    assert hashlib.sha256(key.text.encode()).hexdigest() in text
    assert "nightly load" in text
    assert key.text not in repr(key)


def test_an_id_that_is_taken_is_not_given_again(path: Path) -> None:
    drawn = iter([b"\0" * 5, b"\1" * 20, b"\0" * 5, b"\0" * 5, b"\2" * 5, b"\3" * 20])

    def entropy(length: int) -> bytes:
        piece = next(drawn)
        assert len(piece) == length
        return piece

    first, second = (create_key(path, "clinic", now=NOON, entropy=entropy, new_owner=True) for _ in range(2))
    assert first.id != second.id


def test_the_file_is_for_its_owner_only_and_nothing_else_is_left_behind(path: Path) -> None:
    (path.parent / ".api_keys.yaml.new").write_text("left by a crash")
    create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_an_unknown_owner_has_to_be_called_new(path: Path) -> None:
    create(path)
    before = path.read_bytes()
    with pytest.raises(Refused, match=r"no owner 'clinci' among clinic; .*--new-owner"):
        create_key(path, "clinci", now=NOON, entropy=secrets.token_bytes)
    assert path.read_bytes() == before
    create_key(path, "clinic", now=NOON, entropy=secrets.token_bytes)
    assert read_keyfile(path).owners == ["clinic"]


@pytest.mark.parametrize(
    ("owner", "options", "named"),
    [
        ("Clinic A", {}, r"owners\[0\]"),
        ("clinic", {"allow": []}, r"keys\[0\].allow"),
        ("clinic", {"allow": ["read"]}, r"keys\[0\].allow"),
        ("clinic", {"rates": Rates(0.0)}, r"keys\[0\].rate"),
        ("clinic", {"rates": Rates(None, 0.0)}, r"keys\[0\].values_per_second"),
        ("clinic", {"rates": Rates(None, None, 0.5)}, r"keys\[0\].values_per_day"),
    ],
)
def test_a_key_that_the_file_could_not_be_read_with_is_not_made(
    path: Path, owner: str, options: dict[str, object], named: str
) -> None:
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=named):
        create(path, owner, **options)
    assert path.read_bytes() == before


def test_a_revoked_key_is_unknown_and_stays_in_the_list(path: Path) -> None:
    kept, revoked = create(path), create(path)
    entry = revoke_key(path, revoked.id, now=NOON)
    table = load_keys(path)
    assert table.authenticate(revoked.text, 0.0) is None
    assert table.authenticate(kept.text, 0.0) is not None
    assert [(each.id, each.revoked) for each in read_keyfile(path).keys] == [
        (kept.id, None),
        (revoked.id, "2025-03-01T12:00:00+00:00"),
    ]
    assert revoke_key(path, revoked.id, now=datetime(2026, 1, 1, tzinfo=UTC)) == entry


def test_revoking_what_is_not_there_says_where_to_look_and_does_not_repeat_a_key(path: Path) -> None:
    key = create(path)
    with pytest.raises(Refused, match="keys list") as refused:
        revoke_key(path, key.text, now=NOON)
    assert key.text not in str(refused.value)


def test_keys_made_at_once_are_all_there(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: create(path), range(24)))
    table = load_keys(path)
    assert all(table.authenticate(key.text, 0.0) for key in made)


def test_the_sample_in_conf_is_one() -> None:
    sample = read_keyfile(ROOT / "conf" / "api_keys.yaml")
    assert [(entry.owner, entry.revoked is None) for entry in sample.keys] == [("clinic-a", True), ("research", False)]


ENTRY = f"id: a2\n    owner: clinic\n    sha256: {HASH}\n    allow: [tokenize]"


def file_text(entry: str = ENTRY, owners: str = "[clinic]") -> str:
    return f"owners: {owners}\nkeys:\n  - {entry}\n"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "expected a mapping"),
        ("owners: [clinic]\n", "keys"),
        ("owners: [clinic]\nkeys: []\nkey: 1\n", "key: unknown key"),
        (file_text(owners="[Clinic]"), r"owners\[0\]"),
        (file_text(owners="[clinic, clinic]"), r"owners\[1\]"),
        (file_text(owners="[lab]"), r"keys\[0\].owner"),
        (file_text(ENTRY.replace("a2\n", "a1\n")), r"keys\[0\].id"),
        (file_text(ENTRY.replace(HASH, HASH[:-1])), r"keys\[0\].sha256"),
        (file_text(ENTRY.replace("[tokenize]", "[read]")), r"keys\[0\].allow"),
        (file_text(ENTRY.replace("[tokenize]", "[]")), r"keys\[0\].allow"),
        (file_text(ENTRY.replace("[tokenize]", "[rotate, rotate]")), r"keys\[0\].allow"),
        (file_text(ENTRY + "\n    rate: 0"), r"keys\[0\].rate"),
        (file_text(ENTRY + "\n    values_per_second: 0"), r"keys\[0\].values_per_second"),
        (file_text(ENTRY + "\n    values_per_day: many"), r"keys\[0\].values_per_day"),
        (file_text(ENTRY + "\n    revoked: true"), r"keys\[0\].revoked"),
        (file_text(ENTRY + "\n    revoked: ''"), r"keys\[0\].revoked"),
        (file_text(ENTRY + "\n    role: admin"), r"keys\[0\].role: unknown key"),
        (file_text(ENTRY + f"\n  - {ENTRY}"), r"keys\[1\].id"),
    ],
)
def test_a_file_that_is_not_in_order_names_file_and_key(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "api_keys.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"{path}: .*{named}"):
        read_keyfile(path)


def test_the_fingerprint_is_of_what_the_file_means() -> None:
    keys = [api_key("one", CLINIC), api_key("two", LAB, rates=Rates(5))]
    table = KeyTable([CLINIC, LAB], keys)
    assert KeyTable([LAB, CLINIC], reversed(keys)).fingerprint == table.fingerprint
    others = [
        KeyTable([CLINIC, LAB], keys[:1]),
        KeyTable([CLINIC, LAB, Owner("more")], keys),
        KeyTable([CLINIC, LAB], [keys[0], api_key("two", LAB, rates=Rates(6))]),
        KeyTable([CLINIC, LAB], [keys[0], api_key("two", LAB, rates=Rates(5, 6))]),
        KeyTable([CLINIC, LAB], [keys[0], api_key("two", LAB, rates=Rates(5, None, 6))]),
        KeyTable([CLINIC, LAB], [keys[0], api_key("two", LAB, ["rotate"], rates=Rates(5))]),
        KeyTable([CLINIC, LAB], [keys[0], api_key("two", CLINIC, rates=Rates(5))]),
    ]
    assert len({each.fingerprint for each in [table, *others]}) == 1 + len(others)


def test_a_table_without_rates_in_values_has_the_fingerprint_that_earlier_releases_come_to() -> None:
    key = api_key("one", CLINIC, rates=Rates(5))
    meaning = ["clinic", "lab"], [("one", "clinic", key.digest, ["detokenize", "tokenize"], 5)]
    assert KeyTable([CLINIC, LAB], [key]).fingerprint == hashlib.sha256(msgspec.msgpack.encode(meaning)).hexdigest()[:16]


def test_notes_and_revoked_keys_do_not_show_in_the_fingerprint(path: Path) -> None:
    create(path)
    before = load_keys(path).fingerprint
    revoke_key(path, create(path).id, now=NOON)
    assert load_keys(path).fingerprint == before
    path.write_text(path.read_text().replace("created:", "note: seen\n  created:"))
    assert load_keys(path).fingerprint == before


KEY = key_text("clinic")
NOT_KEYS = [
    "",
    "qvk_",
    "nonsense",
    key_text("nobody"),
    KEY[:-1] + "b",
    KEY + "a",
    KEY.upper(),
    KEY + "\n",
    KEY.replace("qvk_clinic_", "qvk_lab_"),
    "\udcff" + KEY,
]


@pytest.mark.parametrize("text", NOT_KEYS)
def test_what_is_no_key_is_none(text: str) -> None:
    assert KEYS.authenticate(text, 0.0) is None


@given(st.text())
def test_no_text_makes_it_fail(text: str) -> None:
    assert KEYS.authenticate(text, 0.0) is None


def test_every_text_costs_one_hash_and_one_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    work: list[str] = []

    def counted(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            work.append(name)
            return function(*arguments)

        return call

    monkeypatch.setattr(hashlib, "sha256", counted("hash", hashlib.sha256))
    monkeypatch.setattr(hmac, "compare_digest", counted("compare", hmac.compare_digest))
    for text in [KEY, *NOT_KEYS]:
        work.clear()
        KEYS.authenticate(text, 0.0)
        assert work == ["hash", "compare"]
