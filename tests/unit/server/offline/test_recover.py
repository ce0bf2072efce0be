"""Recovery cuts and unites stores that a power cut has torn, leaves out other damage, and makes a cluster from one disk."""

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import pytest
from click.testing import CliRunner, Result

from quorumvault.cli import main
from quorumvault.config.certificates import load_credentials
from quorumvault.config.cluster import load_cluster, load_node
from quorumvault.crypto.keys import Keyring
from quorumvault.errors import ConfigError, DirectoryInUse, Refused, StorageFailed, StoreCorrupt
from quorumvault.model import NODE_NAMES
from quorumvault.protocol import records
from quorumvault.protocol.rollback_marks import NO_MARK, Mark, contradicts
from quorumvault.protocol.views import Mode, View
from quorumvault.server.offline.rebuild import Rebuilt, rebuild
from quorumvault.server.offline.recover import Recovery, recover
from quorumvault.server.storage import layout
from quorumvault.server.storage.data_directory import PUT_BACK, mark_untrusted, open_disk, why_untrusted
from quorumvault.server.storage.disk_identity import DiskIdentity, lock_data_directory, read_identity, write_identity
from quorumvault.server.storage.leveldb import LevelDBStore
from tests.rigs.made import CLINIC, files, made, sealed

#: The header of a whole record, and bytes that do not match its checksum: LevelDB does not open a log that ends so.
TORN = struct.pack("<IHB", 1, 100, 1) + bytes(range(100))


class Vault:
    """A cluster's directory, and its stores as if nodes had written to them."""

    def __init__(self, directory: Path) -> None:
        self.directory = made(directory)
        self.nodes = {node: load_node(directory / "cluster.yaml", node) for node in NODE_NAMES}
        self.keyring = Keyring("s1", self.nodes["n1"].master_secret)

    def identity(self, node: str) -> DiskIdentity:
        identity = read_identity(self.directory / node / "disk.json")
        assert identity is not None
        return identity

    def open(self, node: str) -> LevelDBStore:
        return LevelDBStore.open(self.directory / node / "store", self.identity(node).disk)

    def record(self, text: str, clock: int = 1 << 16, writer: int = 1, epoch: int = 1) -> dict[bytes, bytes]:
        return sealed(self.keyring, CLINIC, text, epoch, clock, writer)

    def store(self, pairs: dict[bytes, bytes], *nodes: str) -> None:
        """Write the pairs to each store in one batch. The log stays as the process left it."""
        for node in nodes or NODE_NAMES:
            with closing(self.open(node)) as store:
                store.write(pairs)

    def log(self, node: str) -> Path:
        return max((self.directory / node / "store").glob("*.log"), key=lambda path: int(path.stem))

    def tear(self, *nodes: str, tail: bytes = TORN) -> None:
        for node in nodes or NODE_NAMES:
            with self.log(node).open("ab") as log:
                log.write(tail)

    def content(self, node: str) -> dict[bytes, bytes]:
        """The records and registers of a node's store."""
        with closing(self.open(node)) as store:
            return {key: value for prefix in (b"e", b"r") for key, value in store.scan(prefix)}

    def all_have(self, pairs: dict[bytes, bytes]) -> bool:
        return all(self.content(node) == pairs for node in NODE_NAMES)

    def recover(self, *, accept_older: bool = False) -> Recovery:
        return recover(list(self.nodes.values()), lambda words: None, accept_older=accept_older)

    def rebuild(self, node: str, into: Path) -> Rebuilt:
        return rebuild(self.nodes[node], into, now=datetime.now(UTC), entropy=os.urandom, tell=lambda words: None)

    def came_to(self, node: str, mark: Mark) -> None:
        """Set how often the disk has been started and how many groups it has written."""
        write_identity(self.directory / node / "disk.json", replace(self.identity(node), incarnation=mark.incarnation))
        self.store({layout.SEQUENCE_KEY: layout.encode_sequence(mark.sequence)}, node)

    def mark(self, node: str) -> Mark:
        with closing(self.open(node)) as store:
            return Mark(self.identity(node).incarnation, layout.read_sequence(store))

    def votes(self, node: str) -> bool:
        """True if its node, when it starts, finds a disk that it trusts."""
        disk = open_disk(self.nodes[node])
        if disk.store is not None:
            disk.store.close()
        return disk.store is not None and disk.identity.mode is Mode.ACTIVE

    def remembers(self, witness: str, node: str, mark: Mark) -> None:
        self.store({layout.mark_key(self.identity(node).disk): layout.encode_mark(mark)}, witness)


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "vault")


def register(epoch: int) -> dict[bytes, bytes]:
    return {layout.register_key(CLINIC.id): layout.encode_register(epoch, "s1")}


def test_torn_tails_on_all_three_are_cut_and_the_stores_united(vault: Vault) -> None:
    pairs = [("n1", "n2"), ("n2", "n3"), ("n1", "n3")]
    for number, (one, other) in enumerate(pairs):
        vault.store(vault.record(f"acknowledged by two {number}"), one, other)
    vault.store(register(2), "n1")
    vault.store(vault.record("whole on one, and nobody was told: on all three or on none") | register(3), "n3")
    vault.store(register(3), "n2")
    expected = vault.content("n3") | vault.record("acknowledged by two 0")
    vault.tear()
    before = {node: vault.log(node).read_bytes() for node in NODE_NAMES}
    for node in NODE_NAMES:
        with pytest.raises(StorageFailed, match="checksum mismatch"):
            vault.open(node)
    done = vault.recover()
    assert vault.all_have(expected)
    for node in NODE_NAMES:
        (cut,) = done.cuts[node]
        assert (cut.kept, cut.cut, cut.copy.read_bytes()) == (len(before[node]) - len(TORN), len(TORN), before[node])
        assert cut.copy.stat().st_mode & 0o077 == 0
    assert (done.left_out, done.in_doubt, done.records, done.added) == ({}, [], 4, {"n1": 3, "n2": 2, "n3": 1})
    again = vault.recover()
    assert (again.cuts, again.added) == ({node: [] for node in NODE_NAMES}, dict.fromkeys(NODE_NAMES, 0))


def test_nodes_that_noted_that_their_store_does_not_open_start_again_and_are_not_taken_for_old_copies(vault: Vault) -> None:
    vault.store(vault.record("a") | {layout.SEQUENCE_KEY: layout.encode_sequence(7)})
    vault.tear()
    for node in NODE_NAMES:
        with pytest.raises(StorageFailed):
            open_disk(vault.nodes[node])
        assert not vault.votes(node)
    vault.recover()
    for node in NODE_NAMES:
        assert vault.mark(node).sequence > 7 + 100_000
        assert vault.votes(node)


BEHIND = "n3 remembers more of it than it holds: it was put back from an older copy, or its last writes are gone"


@pytest.mark.parametrize("remembered", [Mark(2, 8), Mark(1, 8), Mark(3, 7), Mark(3, 2)])
def test_a_disk_that_another_one_here_remembers_more_of_takes_no_part(vault: Vault, remembered: Mark) -> None:
    """n2 was put back from an older copy, and no node has run since that could have told it so."""
    vault.store(vault.record("acknowledged by n1 and n2"), "n1")
    for node in NODE_NAMES:
        vault.came_to(node, Mark(2, 7))
    vault.remembers("n3", "n2", remembered)
    vault.tear("n1")
    done = vault.recover()
    assert done.left_out == {"n2": BEHIND}
    assert vault.content("n1") == vault.content("n3") == vault.record("acknowledged by n1 and n2")
    assert (vault.content("n2"), vault.mark("n2")) == ({}, Mark(2, 7))


@pytest.mark.parametrize("remembered", [Mark(2, 7), Mark(1, 7), Mark(2, 3), NO_MARK])
def test_a_disk_that_has_all_that_it_is_remembered_for_takes_part(vault: Vault, remembered: Mark) -> None:
    vault.came_to("n2", Mark(2, 7))
    for witness in ("n1", "n3"):
        vault.remembers(witness, "n2", remembered)
    done = vault.recover()
    assert (done.left_out, done.older) == ({}, {})


def test_an_older_copy_is_not_one_of_two_unless_its_operator_accepts_what_is_lost(vault: Vault) -> None:
    shutil.rmtree(vault.directory / "n1")
    vault.came_to("n2", Mark(1, 1))
    vault.remembers("n3", "n2", Mark(5 << 20, 5 << 40))
    with pytest.raises(Refused) as told:
        vault.recover()
    assert str(told.value) == (
        f"2 disks are needed to have all that was acknowledged, and 1 can be used (n1: its disk is not here; n2: {BEHIND}); "
        f"bring another one here; or unite these older copies, and lose what was acknowledged after they were taken and is on no "
        f"disk here: --accept-older; or go on from one alone and lose what it does not have: --only NODE --accept-loss"
    )
    assert vault.mark("n2") == Mark(1, 1)
    done = vault.recover(accept_older=True)
    assert (done.left_out, done.older) == ({"n1": "its disk is not here"}, {"n2": BEHIND})
    assert not contradicts(Mark(5 << 20, 5 << 40), vault.mark("n2"), vault.mark("n2").sequence)
    assert vault.recover().older == {}


def remember_more_of_each_other(vault: Vault) -> None:
    for node, other in (("n1", "n2"), ("n2", "n1")):
        vault.remembers(node, other, Mark(1, 1))


def found_out_themselves(vault: Vault) -> None:
    for node in ("n1", "n2"):
        words = f"{PUT_BACK}: n3 remembers write 9 of its start 2, and it was at write 3 at its start 1"
        mark_untrusted(vault.directory / node, words)


@pytest.mark.parametrize(
    ("prepare", "words"),
    [(remember_more_of_each_other, "n1: n2 remembers more .*; n2: n1 remembers more "), (found_out_themselves, "n3 remembers")],
)
def test_two_older_copies_are_united_if_their_operator_accepts_that(
    vault: Vault, prepare: Callable[[Vault], None], words: str
) -> None:
    prepare(vault)
    vault.store(vault.record("a"), "n1")
    with pytest.raises(Refused, match=rf"1 can be used .*{words}.*--accept-older"):
        vault.recover()
    assert vault.recover(accept_older=True).older.keys() == {"n1", "n2"}
    assert vault.all_have(vault.record("a"))
    assert vault.votes("n1")


def test_a_disk_that_takes_no_part_is_asked_what_it_remembers(vault: Vault) -> None:
    vault.remembers("n3", "n2", Mark(1, 1))
    mark_untrusted(vault.directory / "n3", "a block of it is corrupt")
    with pytest.raises(Refused, match=BEHIND) as told:
        vault.recover()
    assert "--accept-older" in str(told.value)
    damage(vault.directory / "n3" / "store" / "CURRENT", 0)
    assert vault.recover().left_out == {"n3": "it was distrusted: a block of it is corrupt"}


def test_a_last_write_that_was_acknowledged_and_has_rotted_is_told_from_a_torn_one(vault: Vault) -> None:
    """The log looks the same. But n2 counted the acknowledgement, and remembers it."""
    vault.store(vault.record("a") | {layout.SEQUENCE_KEY: layout.encode_sequence(1)}, "n1", "n2")
    acknowledged = vault.record("rotten on n1") | {layout.SEQUENCE_KEY: layout.encode_sequence(2)}
    with closing(vault.open("n1")) as store:
        store.write(vault.record("before"))
        store.write(acknowledged)
    damage(vault.log("n1"), -1)
    vault.store(acknowledged, "n2")
    vault.remembers("n2", "n1", Mark(0, 2))
    done = vault.recover()
    assert done.left_out.keys() == {"n1"}
    assert "n2 remembers more of it than it holds" in done.left_out["n1"]
    assert len(done.cuts["n1"]) == 1
    assert not vault.votes("n1")  # it rejoins


def test_only_a_disk_that_was_torn_is_raised_beyond_what_a_disk_elsewhere_may_remember(vault: Vault) -> None:
    vault.came_to("n2", Mark(2, 7))
    shutil.rmtree(vault.directory / "n1")
    vault.tear("n3")
    done = vault.recover()
    assert vault.mark("n2") == Mark(2, 7)
    assert vault.mark("n3") > Mark(1 << 19, 1 << 39)
    assert done.in_doubt == ["n3"]


def test_a_store_whose_memory_cannot_be_read_is_left_out(vault: Vault) -> None:
    vault.store({layout.mark_key(b"d" * 16): b"no mark"}, "n1")
    vault.store({layout.SEQUENCE_KEY: b"no number"}, "n2")
    with pytest.raises(Refused, match=r"n1: what the store remembers .*; n2: the store's sequence number cannot be read"):
        vault.recover()


def test_a_disk_that_was_cut_does_not_vote_before_a_recovery_has_come_to_its_end(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk's store opens again by then, but may lack what only a recovery adds."""
    shutil.rmtree(vault.directory / "n3")
    vault.tear("n1")
    with monkeypatch.context() as broken:
        broken.setattr("quorumvault.server.offline.unite.merge_piece", Mock(side_effect=StorageFailed("the device is gone")))
        vault.store(vault.record("a"), "n2")
        with pytest.raises(StorageFailed, match="device is gone"):
            vault.recover()
    vault.open("n1").close()
    assert not vault.votes("n1")
    done = vault.recover()
    assert (done.cuts["n1"], done.in_doubt, done.added["n1"]) == ([], ["n1"], 1)
    assert vault.votes("n1")


def test_unequal_bytes_become_a_conflict_mark_on_all_and_the_lower_version_stays(vault: Vault) -> None:
    ((key, record),) = vault.record("a", clock=5 << 16).items()
    ((_, other),) = vault.record("b").items()
    vault.store({key: record}, "n1")
    vault.store(vault.record("a", clock=4 << 16), "n2")
    vault.recover()
    assert vault.all_have(vault.record("a", clock=4 << 16))
    vault.store({key: other[: records.HEADER_BYTES] + record[records.HEADER_BYTES :]}, "n3")
    vault.recover()
    assert vault.all_have(vault.content("n1"))


def damage(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def fill(vault: Vault, *nodes: str) -> None:
    """Write several batches to one log."""
    for node in nodes or NODE_NAMES:
        with closing(vault.open(node)) as store:
            for number in range(5):
                store.write(vault.record(f"value {number}"))


def damage_older_log(vault: Vault) -> None:
    """Damage an older log: LevelDB writes to a second log while it makes a table of the first."""
    older = vault.log("n3")
    newer = older.with_name(f"{int(older.stem) + 50:06}.log")
    batches = older.read_bytes()
    vault.store(vault.record("later"), "n3")
    shutil.move(vault.log("n3"), newer)
    older.write_bytes(batches)
    damage(older, -1)


def damage_table(vault: Vault) -> None:
    chance = random.Random(1)
    with closing(vault.open("n3")) as store:
        for number in range(10):
            store.write(vault.record(f"{number}" + chance.randbytes(500_000).hex()))
    vault.open("n3").close()  # what was in the logs is in tables now
    table = max((vault.directory / "n3" / "store").glob("*.ldb"), key=lambda path: path.stat().st_size)
    damage(table, table.stat().st_size // 2)


def replace_n3(vault: Vault) -> None:
    identity = vault.identity("n1")
    assert identity.view is not None
    newer = View(2, b"j" * 16, {**identity.view.disks, "n3": b"j" * 16})
    write_identity(vault.directory / "n1" / "disk.json", replace(identity, view=newer))


def let_n3_join(vault: Vault) -> None:
    write_identity(vault.directory / "n3" / "disk.json", replace(vault.identity("n3"), mode=Mode.JOINING))


LEFT_OUT: dict[str, Callable[[Vault], None]] = {
    "its disk is not here": lambda vault: shutil.rmtree(vault.directory / "n3"),
    "a log is damaged in the middle": lambda vault: damage(vault.log("n3"), 20),
    "a later log goes on behind it": damage_older_log,
    "it was distrusted: n1 remembers": lambda vault: mark_untrusted(vault.directory / "n3", "n1 remembers more than it holds"),
    "another disk has taken its place, in view 2": replace_n3,
    "it has not been whole since it joined": let_n3_join,
}


@pytest.mark.parametrize("reason", LEFT_OUT)
def test_a_disk_that_may_not_take_part_is_left_out_and_left_as_it_is(vault: Vault, reason: str) -> None:
    place = vault.directory / "n3"
    vault.store(vault.record("on n3 alone"), "n3")
    fill(vault)
    LEFT_OUT[reason](vault)
    vault.tear("n1", "n2")
    before = why_untrusted(place)
    done = vault.recover()
    assert done.left_out.keys() == {"n3"}
    assert reason in done.left_out["n3"]
    assert (vault.content("n1"), len(vault.content("n1"))) == (vault.content("n2"), 5)
    assert (why_untrusted(place), (place / "torn").exists()) == (before, False)


def test_two_damaged_disks_are_one_too_many(vault: Vault) -> None:
    """Proves: two lost disks need an operator."""
    fill(vault)
    for node in ("n1", "n3"):
        damage(vault.log(node), 20)
    with pytest.raises(Refused, match=r"2 disks are needed .* 1 can be used \(n1: .*damaged in the middle.*; n3: .*") as told:
        vault.recover()
    assert "--only NODE --accept-loss" in str(told.value)
    assert "--accept-older" not in str(told.value)  # it would not help


def test_a_node_that_runs_is_in_the_way(vault: Vault) -> None:
    vault.tear()
    before = vault.log("n1").read_bytes()
    with lock_data_directory(vault.directory / "n3"), pytest.raises(DirectoryInUse):
        vault.recover()
    assert vault.log("n1").read_bytes() == before


def test_another_cluster_s_disk_and_another_secret_are_refused(vault: Vault, tmp_path: Path) -> None:
    for node in NODE_NAMES:
        open_disk(vault.nodes[node]).store.close()  # type: ignore[union-attr]
    other = {node: replace(config, master_secret=bytes(32)) for node, config in vault.nodes.items()}
    with pytest.raises(ConfigError, match="expected the secret 's1' that this node's records were made with"):
        recover(list(other.values()), lambda words: None)
    stranger = Vault(tmp_path / "other")
    shutil.rmtree(vault.directory / "n3")
    shutil.copytree(stranger.directory / "n3", vault.directory / "n3")
    with pytest.raises(ConfigError, match="this is another node's or cluster's"):
        vault.recover()


def test_the_copy_is_there_before_anything_is_cut_and_a_second_one_beside_it(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.tear()
    torn = vault.log("n1").read_bytes()
    with monkeypatch.context() as broken:
        broken.setattr("shutil.copyfileobj", Mock(side_effect=OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            vault.recover()
    assert vault.log("n1").read_bytes() == torn
    (vault.directory / "n1" / "torn" / f"{vault.log('n1').name}.0").write_bytes(b"a part, as a crash left it")
    done = vault.recover()
    assert done.cuts["n1"][0].copy.name.endswith(".log.1")
    assert done.cuts["n1"][0].copy.read_bytes() == torn


# A cluster from one disk


def test_a_cluster_out_of_one_disk_has_what_that_disk_has_on_three_new_ones(vault: Vault, tmp_path: Path) -> None:
    """The one disk may be torn. The rest of the old cluster stays as it was, and is foreign to the new cluster."""
    expected = vault.record("a", clock=1_767_225_600_000 << 16) | register(4)
    vault.store(expected)
    vault.store(vault.record("b"), "n2", "n3")
    vault.tear("n1")
    others = {node: files(vault.directory / node) for node in ("n2", "n3")}
    rebuilt = vault.rebuild("n1", tmp_path / "new")
    assert rebuilt.cluster_file == tmp_path / "new" / "cluster.yaml"
    assert (rebuilt.records, rebuilt.newest, rebuilt.whole) == (1, datetime(2026, 1, 1, tzinfo=UTC), True)
    assert [cut.cut for cut in rebuilt.cuts] == [len(TORN)]
    assert ({node: files(vault.directory / node) for node in others}, vault.content("n1")) == (others, expected)
    cluster, old = load_cluster(rebuilt.cluster_file), load_cluster(vault.directory / "cluster.yaml")
    assert cluster.cluster_id != old.cluster_id
    assert cluster.nodes == old.nodes
    disks = set()
    for node in NODE_NAMES:
        disk = open_disk(load_node(rebuilt.cluster_file, node))
        assert disk.store is not None
        assert {key: value for prefix in (b"e", b"r") for key, value in disk.store.scan(prefix)} == expected
        disk.store.close()
        assert disk.identity.mode is Mode.ACTIVE
        disks.add(disk.identity.disk)
    assert len(disks) == 3
    assert disks.isdisjoint(vault.identity("n1").view.disks.values())  # type: ignore[union-attr]
    for name in ("fields.yaml", "api_keys.yaml", "secrets/master-s1.key"):
        assert (tmp_path / "new" / name).read_bytes() == (vault.directory / name).read_bytes()
        assert (tmp_path / "new" / name).stat().st_mode == (vault.directory / name).stat().st_mode
    assert (tmp_path / "new" / "secrets").stat().st_mode & 0o777 == 0o700
    for node in NODE_NAMES:  # the certificates are for the new cluster id
        load_credentials(load_cluster(rebuilt.cluster_file), node)
    shutil.rmtree(tmp_path / "new" / "n2")
    shutil.copytree(vault.directory / "n2", tmp_path / "new" / "n2")
    with pytest.raises(ConfigError, match="this is another node's or cluster's"):
        open_disk(load_node(rebuilt.cluster_file, "n2"))


def test_a_cluster_that_cannot_be_made_is_not_there(vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    into = tmp_path / "new"
    steps: list[str] = []

    def tell(words: str) -> None:
        steps.append(words)
        if words.startswith("n2"):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        rebuild(vault.nodes["n1"], into, now=datetime.now(UTC), entropy=os.urandom, tell=tell)
    assert list(into.iterdir()) == []
    assert steps == ["n1: gets what the disk of n1 has", "n2: gets what the disk of n1 has"]
    (into / "something").touch()
    with pytest.raises(Refused, match="expected an empty directory"):
        vault.rebuild("n1", into)


def test_a_disk_that_is_not_there_or_damaged_makes_no_cluster(vault: Vault, tmp_path: Path) -> None:
    fill(vault, "n1")
    damage(vault.log("n1"), 20)
    with pytest.raises(StoreCorrupt, match="damaged in the middle"):
        vault.rebuild("n1", tmp_path / "new")
    (vault.directory / "n2" / "disk.json").unlink()
    with pytest.raises(Refused, match="there is no disk of n2 here"):
        vault.rebuild("n2", tmp_path / "new")
    shutil.rmtree(vault.directory / "n3")
    with pytest.raises(Refused, match="there is no such directory"):
        vault.rebuild("n3", tmp_path / "new")
    assert not (tmp_path / "new").exists()


# The command


@pytest.fixture
def command(vault: Vault) -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(main, ["recover", str(vault.directory), *arguments])


def test_the_command_tells_what_was_cut_and_what_was_added(vault: Vault, command: Callable[..., Result]) -> None:
    vault.store(vault.record("a"), "n1", "n2")
    log = vault.log("n1")
    kept = log.stat().st_size
    vault.tear("n1", "n2")
    result = command()
    assert result.exit_code == 0, result.output
    assert f"n1: {log.name}: cut 107 bytes behind {kept:,}; kept as {vault.directory}/n1/torn/{log.name}.0" in result.output
    assert "n3: nothing was torn" in result.output
    assert "n3: 1 entries that others had and it had not" in result.output
    assert "n1 and n2 and n3 have the same 1 records, and can be started." in result.output


def test_the_command_says_what_is_in_doubt_and_what_was_left_out_or_accepted(
    vault: Vault, command: Callable[..., Result]
) -> None:
    vault.tear("n1", "n2")
    vault.remembers("n3", "n2", Mark(1, 1))
    result = command()
    assert result.exit_code == 0, result.output
    assert f"n2: left out: {BEHIND}" in result.output
    assert result.output.count(": cut 107 bytes behind") == 2
    assert "In doubt: what was torn on n1." in result.output
    assert "then it may be on n2" in result.output
    assert "The copies can be removed" not in result.output
    told = json.loads(command("--accept-older", "--json").stdout)
    assert (told["older"], told["in_doubt"], told["left_out"]) == ({"n2": BEHIND}, [], {})
    assert told["nodes"]["n2"] == {"cuts": [], "added": 0}


def test_the_command_makes_a_cluster_of_one_disk_only_if_the_loss_is_accepted(
    vault: Vault, command: Callable[..., Result], tmp_path: Path
) -> None:
    vault.store(vault.record("a"))
    new = str(tmp_path / "new")
    refused = command("--only", "n2", "--into", new)
    assert refused.exit_code == 1
    assert "n2 alone cannot know what the two other disks acknowledged without it" in refused.output
    assert not Path(new).exists()
    result = command("--only", "n2", "--into", new, "--accept-loss")
    assert result.exit_code == 0, result.output
    assert f"A new cluster is in {new}, with all that n2 had: 1 records, the newest first written at 1970-01-01" in result.output
    assert f"quorumvault pack {new} --node n3" in result.output
    told = json.loads(command("--only", "n2", "--into", new + "2", "--accept-loss", "--json").stdout)
    assert (told["cluster"], told["records"], told["whole"]) == (f"{new}2/cluster.yaml", 1, True)


@pytest.mark.parametrize(
    "arguments", [["--donor", ".", "--only", "n1"], ["--into", "new"], ["--only", "n1"], ["--only", "n4", "--into", "new"]]
)
def test_options_that_do_not_go_together(command: Callable[..., Result], arguments: list[str]) -> None:
    assert command(*arguments).exit_code == 2
