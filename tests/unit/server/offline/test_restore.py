"""A new cluster from a backup: all of the backup is on three new disks, or nothing at all if anything is wrong with the file."""

import json
import os
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from msgspec import structs

from quorumvault.cli import main
from quorumvault.config.addresses import plan_nodes
from quorumvault.config.api_keys import load_keys
from quorumvault.config.cluster import load_cluster, load_node
from quorumvault.crypto.keys import Keyring, backup_key, fingerprint
from quorumvault.errors import BackupDamaged, ConfigError, Refused, StorageFailed
from quorumvault.model import NODE_NAMES, Owner
from quorumvault.protocol.views import Mode
from quorumvault.server.backup.format import Counts, Header, Piece, Trailer, Writer, seal
from quorumvault.server.offline.restore import Given, Restored, restore
from quorumvault.server.storage import layout, store
from quorumvault.server.storage.data_directory import open_disk
from quorumvault.server.storage.gaps import Gaps
from quorumvault.server.storage.leveldb import LevelDBStore
from tests.rigs.made import CLINIC, NOW, flip, made, sealed

REGISTRY = Owner("registry")
NODES = plan_nodes(["127.0.0.1"], 9100)


@dataclass
class Old:
    """The files of the cluster that a backup comes from, or what is left of them."""

    directory: Path

    def __post_init__(self) -> None:
        made(self.directory, [CLINIC, REGISTRY])
        self.secret = load_node(self.directory / "cluster.yaml", "n1").master_secret
        self.keyring = Keyring("s1", self.secret)
        self.header = Header("old", 4, "s1", fingerprint(self.secret), "2026-01-01T00:00:00.000+00:00", "1.0")

    @property
    def files(self) -> Given:
        return Given(self.directory / "secrets/master-s1.key", self.directory / "fields.yaml", self.directory / "api_keys.yaml")

    def record(self, owner: Owner, text: str, epoch: int = 1) -> dict[bytes, bytes]:
        return sealed(self.keyring, owner, text, epoch)

    def pairs(self) -> dict[bytes, bytes]:
        pairs = {layout.register_key(CLINIC.id): layout.encode_register(2, "s1")}
        pairs |= {layout.revoked_key("3fq7tzd2"): layout.REVOKED_VALUE}
        pairs |= {layout.owner_key(owner.id): owner.name.encode() for owner in (CLINIC, REGISTRY)}
        for number in range(20):
            pairs |= self.record(CLINIC, f"{number}", 1 + number % 2) | self.record(REGISTRY, f"{number}")
        return pairs

    def save(self, file: Path, pairs: dict[bytes, bytes], counts: Counts | None = None, key: bytes | None = None) -> Path:
        """Write a backup of these pairs, in the order of keys."""
        writer = Writer()
        data = writer.write(self.header)
        order = sorted(pairs)
        for start in range(0, len(order), 7):
            keys = order[start : start + 7]
            data += writer.write(Piece(keys, [pairs[each] for each in keys]))
        trailer = Trailer(counts or count(pairs), ["n1", "n2"], seal(key or backup_key(self.secret), writer.digest))
        file.write_bytes(data + writer.write(trailer))
        return file


def count(keys: Iterable[bytes]) -> Counts:
    kinds = [sum(key.startswith(prefix) for key in keys) for prefix in (layout.RECORD, layout.REGISTER, layout.OWNER)]
    return Counts(kinds[0], kinds[1], kinds[2], 0)


@pytest.fixture
def old(tmp_path: Path) -> Old:
    return Old(tmp_path / "old")


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "new"


def run(file: Path, into: Path, given: Given) -> Restored:
    return restore(file, into, NODES, given, now=NOW, entropy=os.urandom, tell=lambda words: None)


def command(old: Old, file: Path, into: Path, *more: str) -> Result:
    files = ["--master-secret", str(old.files.master_secret), "--fields", str(old.files.fields)]
    return CliRunner().invoke(main, ["restore", str(file), str(into), *files, *more])


def test_three_new_disks_with_all_of_it(old: Old, into: Path, tmp_path: Path) -> None:
    pairs = old.pairs()
    restored = run(old.save(tmp_path / "b.qvb", pairs), into, old.files)
    assert (restored.counts, dict(restored.api_keys), restored.keyless) == (Counts(40, 1, 2, 0), {}, [])
    cluster = load_cluster(restored.cluster_file)
    assert cluster.cluster_id not in ("old", load_cluster(old.directory / "cluster.yaml").cluster_id)
    assert cluster.nodes == NODES
    before, disks = {(old.directory / node / "disk.json").read_text() for node in NODE_NAMES}, set()
    for node in NODE_NAMES:
        disk = open_disk(load_node(restored.cluster_file, node))
        assert disk.store is not None
        with closing(disk.store):
            kept = {key: value for prefix in (b"e", b"k", layout.OWNER, b"r") for key, value in disk.store.scan(prefix)}
        assert (kept, disk.identity.mode, disk.identity.view and disk.identity.view.number) == (pairs, Mode.ACTIVE, 1)
        disks.add(disk.identity.disk)
        assert disk.identity.disk.hex() not in "".join(before)
    assert len(disks) == 3
    for name in ("fields.yaml", "api_keys.yaml", "secrets/master-s1.key"):
        assert (into / name).read_bytes() == (old.directory / name).read_bytes()
    for secret in ("ca.key", "n1.pem"):
        assert (into / "secrets" / secret).read_bytes() != (old.directory / "secrets" / secret).read_bytes()
    for secret in ("api_keys.yaml", "secrets/ca.key", "secrets/n1.pem", "secrets/master-s1.key"):
        assert (into / secret).stat().st_mode & 0o077 == 0


def test_each_new_disk_says_what_the_backup_does_not_know(old: Old, into: Path, tmp_path: Path) -> None:
    """Proves: what is not known is not absent."""
    pairs = old.pairs()
    gone = max(key for key in pairs if key.startswith(layout.RECORD))
    del pairs[gone]
    gap = {layout.GAP + gone[1:]: gone[1:] + b"\0"}
    restored = run(old.save(tmp_path / "b.qvb", pairs | gap, structs.replace(count(pairs), unknown=1)), into, old.files)
    for node in NODE_NAMES:
        disk = open_disk(load_node(restored.cluster_file, node))
        assert disk.store is not None
        with closing(disk.store):
            gaps = Gaps.of(disk.store)
            assert [gaps.covers(key[1:]) for key in pairs if key.startswith(layout.RECORD)] == [False] * 39
            assert gaps.covers(gone[1:])


def test_without_a_key_file_each_owner_gets_a_new_key_and_it_is_good(old: Old, into: Path, tmp_path: Path) -> None:
    file = old.save(tmp_path / "b.qvb", old.pairs())
    restored = run(file, into, Given(old.files.master_secret, old.files.fields, None))
    done = command(old, file, tmp_path / "more", "--host", "10.0.0.1,10.0.0.2,10.0.0.3", "--json")
    answer = json.loads(done.output)
    assert (answer["records"], answer["owners"], answer["from_cluster_id"]) == (40, 2, "old")
    assert answer["nodes"]["n3"] == {"api": "https://10.0.0.3:8700", "peer": "10.0.0.3:8710"}
    for place, made_keys in ((into, restored.api_keys), (tmp_path / "more", answer["api_keys"])):
        assert made_keys.keys() == {"clinic", "registry"}
        keys = load_keys(place / "api_keys.yaml")
        for owner, text in made_keys.items():
            key = keys.authenticate(text, 0.0)
            assert key is not None
            assert (key.owner.name, key.allow) == (owner, frozenset({"tokenize", "detokenize", "rotate"}))
            assert text not in repr(restored)


def test_an_owner_without_a_key_is_named(old: Old, into: Path, tmp_path: Path) -> None:
    pairs = old.pairs() | {layout.owner_key(Owner("lost").id): b"lost"}
    assert run(old.save(tmp_path / "b.qvb", pairs), into, old.files).keyless == ["lost"]


def test_a_secret_of_another_name_keeps_it(old: Old, into: Path, tmp_path: Path) -> None:
    old.header = Header("old", 1, "m7", fingerprint(old.secret), "", "")
    restored = run(old.save(tmp_path / "b.qvb", old.pairs()), into, old.files)
    node = load_node(restored.cluster_file, "n1")
    assert (node.cluster.secrets.master.id, node.master_secret) == ("m7", old.secret)


def test_the_store_is_bound_to_its_secret(old: Old, into: Path, tmp_path: Path) -> None:
    restored = run(old.save(tmp_path / "b.qvb", old.pairs()), into, old.files)
    (into / "secrets/master-s1.key").write_text("ab" * 32 + "\n")
    with pytest.raises(ConfigError, match="this is another one"):
        open_disk(load_node(restored.cluster_file, "n2"))


def is_not_there(into: Path) -> bool:
    return not into.exists() or not list(into.iterdir())


def test_another_master_secret_is_refused(old: Old, into: Path, tmp_path: Path) -> None:
    other = Old(tmp_path / "other")
    with pytest.raises(Refused, match=r"other/secrets/master-s1\.key: this is another master secret \([0-9a-f]{16}\)") as error:
        run(old.save(tmp_path / "b.qvb", old.pairs()), into, Given(other.files.master_secret, old.files.fields, None))
    assert fingerprint(old.secret) in str(error.value)
    assert "\n" not in str(error.value)
    assert is_not_there(into)


def test_a_record_that_is_not_what_was_sealed_is_refused(old: Old, into: Path, tmp_path: Path) -> None:
    pairs = old.pairs()
    key = max(pairs)
    for wrong in (
        pairs | {key: flip(pairs[key])},
        pairs | {key[:-1] + bytes([key[-1] ^ 1]): pairs[key]},  # the record of another token
        {each: value for each, value in pairs.items() if value != b"registry"},  # an owner without a name
        pairs | {layout.owner_key(CLINIC.id): b"registry"},
        pairs | {layout.owner_key(bytes(16)): b"lost"},
        pairs | {layout.owner_key(CLINIC.id): b"\xff"},
        pairs | {layout.register_key(CLINIC.id): b"?"},
        pairs | {b"r": b"?"},
        pairs | {layout.SEQUENCE_KEY: layout.encode_sequence(7)},
    ):
        with pytest.raises(BackupDamaged, match=r"b\.qvb: in the piece at byte [0-9,]+: an? "):
            run(old.save(tmp_path / "b.qvb", wrong), into, old.files)
        assert is_not_there(into)


def test_a_backup_that_was_made_up_without_the_secret_is_refused(old: Old, into: Path, tmp_path: Path) -> None:
    pairs = old.pairs()
    del pairs[max(pairs)]  # every record that is left is authentic
    with pytest.raises(BackupDamaged, match="its seal does not fit"):
        run(old.save(tmp_path / "b.qvb", pairs, key=bytes(32)), into, old.files)
    with pytest.raises(BackupDamaged, match="expected Counts"):
        run(old.save(tmp_path / "b.qvb", pairs, counts=Counts(40, 1, 2, 0)), into, old.files)
    assert is_not_there(into)


def test_the_files_that_are_given_are_looked_at_first(old: Old, into: Path, tmp_path: Path) -> None:
    file, files = old.save(tmp_path / "b.qvb", old.pairs()), old.files
    bad = tmp_path / "bad"
    bad.write_text("fields: 7\n")
    for given in (
        Given(files.master_secret, bad, None),
        Given(files.master_secret, files.fields, bad),
        Given(bad, files.fields, None),
    ):
        with pytest.raises(ConfigError, match=str(bad)):
            run(file, into, given)
    with pytest.raises(ConfigError, match="expected a backup that can be read"):
        run(tmp_path / "missing", into, files)
    assert is_not_there(into)


def test_a_directory_with_something_in_it_stays_as_it_is(old: Old, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is a cluster here already"):
        run(old.save(tmp_path / "b.qvb", old.pairs()), old.directory, old.files)


def test_a_file_that_changes_while_it_is_restored_makes_no_cluster(old: Old, into: Path, tmp_path: Path) -> None:
    file = old.save(tmp_path / "b.qvb", old.pairs())

    def tell(words: str) -> None:
        if words.startswith("n3: gets"):
            old.save(file, old.pairs() | old.record(CLINIC, "another"))

    with pytest.raises(BackupDamaged, match="it was changed while it was restored"):
        restore(file, into, NODES, old.files, now=NOW, entropy=os.urandom, tell=tell)
    assert is_not_there(into)


@pytest.mark.parametrize("loses", [False, True], ids=["changes a record", "loses the last record"])
def test_a_disk_that_does_not_keep_what_is_written_makes_no_cluster(
    old: Old, into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loses: bool
) -> None:
    pairs = old.pairs()
    file, victim = old.save(tmp_path / "b.qvb", pairs), max(pairs)

    def tell(words: str) -> None:
        if words.startswith("n2: compared"):
            disk = json.loads((into / "n2" / "disk.json").read_text())["disk"]
            with closing(LevelDBStore.open(into / "n2" / "store", bytes.fromhex(disk))) as store:
                store.write({} if loses else {victim: flip(pairs[victim])}, [victim] if loses else [])

    with pytest.raises(
        StorageFailed, match=r"new/n2: the disk does not keep what is written to it: entry 44 is not the backup's"
    ):
        restore(file, into, NODES, old.files, now=NOW, entropy=os.urandom, tell=tell)
    assert is_not_there(into)


@pytest.mark.parametrize("size", [100, 10_000_000])
def test_it_is_written_in_batches_of_a_bounded_size(
    old: Old, into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(store, "BATCH_BYTES", size)
    assert run(old.save(tmp_path / "b.qvb", old.pairs()), into, old.files).counts.records == 40


# The command


def test_the_command_for_people(old: Old, into: Path, tmp_path: Path) -> None:
    pairs = old.pairs() | {layout.owner_key(Owner("lost").id): b"lost"}
    file = old.save(tmp_path / "b.qvb", pairs)
    done = command(old, file, into, "--api-keys", str(old.files.api_keys), "--base-port", "9100")
    assert done.exit_code == 0, done.output
    assert f"A cluster is in {into}, with 40 records of 3 owners" in done.output
    assert f"lost is not in it: quorumvault keys create --config {into}/cluster.yaml --owner lost --new-owner" in done.output
    assert "http://127.0.0.1:9100,http://127.0.0.1:9101,http://127.0.0.1:9102" in done.output
    assert "qvk_" not in done.output


def test_the_command_refuses_in_one_line(old: Old, into: Path, tmp_path: Path) -> None:
    file = old.save(tmp_path / "b.qvb", old.pairs())
    file.write_bytes(file.read_bytes()[:-1])
    done = command(old, file, into)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"quorumvault: {file}: at byte" in done.stderr
    wrong = command(old, file, into, "--host", "0.0.0.0")
    assert wrong.exit_code == 2
