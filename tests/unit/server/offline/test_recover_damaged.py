"""What a recovery takes from stores that cannot be read to their end, and from disks that have lost their vote."""

import itertools
import json
import random
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from quorumvault.cli import main
from quorumvault.config.cluster import load_node
from quorumvault.errors import Refused, StorageFailed
from quorumvault.model import NODE_NAMES
from quorumvault.protocol import records
from quorumvault.protocol.rollback_marks import Mark
from quorumvault.protocol.views import Mode, View, successor
from quorumvault.server.offline.recover import Recovery, recover
from quorumvault.server.offline.replace_disk import replace_disk
from quorumvault.server.offline.unite import unite
from quorumvault.server.replica.copy import end_of_part
from quorumvault.server.storage import layout
from quorumvault.server.storage.data_directory import mark_untrusted, open_disk
from quorumvault.server.storage.disk_identity import write_identity
from quorumvault.server.storage.gaps import Gap, Gaps
from tests.rigs.made import CLINIC, flip
from tests.unit.server.offline.test_recover import Vault, damage, register
from tests.unit.server.replica import test_copy as copies

pytestmark = pytest.mark.slow

NAME = {layout.owner_key(CLINIC.id): CLINIC.name.encode()}


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    vault = Vault(tmp_path / "vault")
    for node in NODE_NAMES:
        vault.came_to(node, Mark(1, 10))
    vault.store(NAME)
    return vault


def some(vault: Vault, *numbers: int) -> dict[bytes, bytes]:
    """Records that fill several blocks of a table, spread over all buckets."""
    return {
        key: value
        for number in numbers
        for each in range(100)
        for key, value in vault.record(f"{number} {each} " + random.Random(number * 100 + each).randbytes(500).hex()).items()
    }


def tabled(vault: Vault, node: str) -> Path:
    """Make a table of the log of a node's store. Return the largest table."""
    with closing(vault.open(node)) as store:
        store._db.compact_range()
    return max((vault.directory / node / "store").glob("*.ldb"), key=lambda path: path.stat().st_size)


def rot(vault: Vault, node: str, *shares: float) -> None:
    """Flip a bit in a node's largest table at each of these shares of its length."""
    table = tabled(vault, node)
    for share in shares or (0.5,):
        damage(table, int(table.stat().st_size * share))


def replaced(vault: Vault, node: str = "n3", *, entered: bool = True) -> Path:
    """Give the node's slot to a new disk that waits. If ``entered``, both others enter its view. Return the old disk's place."""
    old = vault.identity("n1").view
    fresh = replace_disk(vault.directory, node, None, entropy=random.Random(1).randbytes)
    assert old is not None
    assert fresh.quarantined is not None
    if entered:
        enter(vault, successor(old, node, fresh.disk))
    return fresh.quarantined


def enter(vault: Vault, view: View) -> None:
    for node in NODE_NAMES:
        write_identity(vault.directory / node / "disk.json", replace(vault.identity(node), view=view))


def remember(vault: Vault, mark: Mark, *witnesses: str) -> None:
    """Have the witnesses remember this mark of n3's first disk."""
    for witness in witnesses or ("n1", "n2"):
        vault.remembers(witness, "n3", mark)


def try_it(vault: Vault, **options: bool | list[Path]) -> Recovery:
    return recover(list(vault.nodes.values()), lambda words: None, **options)  # type: ignore[arg-type]


def readable(vault: Vault, *nodes: str) -> dict[bytes, bytes]:
    """What these nodes hold, which must be the same on all of them. Callers leave out nodes without a vote."""
    contents = [vault.content(node) for node in nodes]
    assert all(content == contents[0] for content in contents)
    return contents[0]


def test_a_disk_that_was_replaced_gives_what_a_damaged_survivor_cannot_read(vault: Vault) -> None:
    """The view changed before the damage was known: the new disk waits, and the old one has been refused for good.

    Proves: donors have no voice."""
    acknowledged = some(vault, 0)
    vault.store(acknowledged, "n1", "n3")
    vault.store(register(3), "n1", "n3")
    remember(vault, Mark(1, 10))
    aside = replaced(vault)
    rot(vault, "n1", 0.3, 0.6)
    done = try_it(vault)
    assert readable(vault, "n1", "n2") == acknowledged | register(3)
    assert vault.votes("n1")
    assert vault.votes("n2")
    assert not vault.votes("n3")  # it joins, from two whole disks
    assert (done.unread, done.records, done.rebuilt) == (0, 100, {"n1": vault.directory / "n1" / "store.damaged.set-aside-1"})
    assert done.left_out == {"n3": "it has not been whole since it joined"}
    assert (aside / "store" / "CURRENT").exists()
    assert try_it(vault).rebuilt == {}


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (lambda vault: remember(vault, Mark(1, 11)), "it is an older copy"),
        (lambda vault: remember(vault, Mark(1, 10), "n1"), "n2 does not say that it is none"),
        (lambda vault: vault.store({layout.mark_key(b"x" * 16): layout.encode_mark(Mark(1, 1))}, "n1"), "another left since"),
        (lambda vault: None, "nobody remembers it"),
    ],
    ids=["older", "unwitnessed", "another", "forgotten"],
)
def test_one_that_may_have_forgotten_something_has_no_voice(vault: Vault, prepare: Callable[[Vault], None], why: str) -> None:
    acknowledged = some(vault, 0)
    vault.store(acknowledged, "n1", "n3")
    if why == "another left since":
        remember(vault, Mark(1, 10))
    prepare(vault)
    aside = replaced(vault)
    rot(vault, "n1")
    before = vault.log("n2").read_bytes()
    with pytest.raises(Refused, match=r"of 65,539 parts only one can, or none \(n1 cannot read .*--donor PATH.*--accept-loss"):
        try_it(vault)
    assert not (vault.directory / "n1" / "store.anew").exists()
    assert len(before) > 0
    done = try_it(vault, accept_loss=True)
    assert readable(vault, "n1", "n2") == acknowledged  # the donor gave what it has, and it has everything
    assert done.unread > 0
    assert done.donors[str(aside)] > 0


def test_what_nobody_can_read_is_lost_only_if_that_is_accepted(vault: Vault) -> None:
    vault.store(some(vault, 0), "n1")
    shutil.rmtree(vault.directory / "n3")
    rot(vault, "n1")
    with pytest.raises(Refused, match="--accept-loss"):
        try_it(vault)
    done = try_it(vault, accept_loss=True)
    left = readable(vault, "n1", "n2")
    assert 95 < len(left) < 100  # all but the records in that block
    assert left.items() <= some(vault, 0).items()
    assert done.unread > 0
    assert vault.votes("n1")


def test_a_cluster_out_of_one_damaged_disk_has_what_can_be_read_of_it(vault: Vault, tmp_path: Path) -> None:
    """The operator has accepted the loss, so no disk of the new cluster still reports lost records as unknown."""
    held = some(vault, 0)
    vault.store(register(3), "n1")
    vault.store(held, "n1")
    gone, *_ = held
    with closing(vault.open("n1")) as store:
        store.write(Gaps([Gap(gone[1:], gone[1:] + b"\0")]).pairs(), [gone])
    rot(vault, "n1")
    new = tmp_path / "new"
    result = CliRunner().invoke(
        main, ["recover", str(vault.directory), "--only", "n1", "--accept-loss", "--into", str(new), "--json"]
    )
    told = json.loads(result.stdout)
    contents = []
    for node in NODE_NAMES:
        disk = open_disk(load_node(new / "cluster.yaml", node))
        assert disk.store is not None
        with closing(disk.store):
            assert Gaps.of(disk.store).count == 0
            contents.append(dict(disk.store.scan(b"e")) | dict(disk.store.scan(layout.RECORD)))
    assert contents[0] == contents[1] == contents[2]
    assert 90 < len(contents[0]) == told["records"] + 1 < 100
    assert contents[0].items() <= (held | register(3)).items()
    assert told["unread"] > 1
    rot(vault, "n1", 0.0)
    with pytest.raises(StorageFailed):
        vault.rebuild("n1", tmp_path / "none")


def test_three_disks_with_damage_in_different_parts_have_everything(vault: Vault) -> None:
    """No disk can be read to its end, and all three are rebuilt."""
    acknowledged = some(vault, 0, 1)
    vault.store(acknowledged)
    for node, share in zip(NODE_NAMES, (0.2, 0.5, 0.8), strict=True):
        rot(vault, node, share)
    done = try_it(vault)
    assert readable(vault, *NODE_NAMES) == acknowledged
    assert done.rebuilt.keys() == set(NODE_NAMES)
    assert all(map(vault.votes, NODE_NAMES))
    again = try_it(vault)
    assert (again.rebuilt, again.added) == ({}, dict.fromkeys(NODE_NAMES, 0))


def test_the_same_part_on_two_disks_is_refused_and_what_can_be_read_besides_is_kept(vault: Vault) -> None:
    vault.store(some(vault, 0), "n1", "n2")
    for node in ("n1", "n2"):
        rot(vault, node)
    with pytest.raises(Refused, match=r"n1 cannot read [\d,]+, n2 cannot read [\d,]+"):
        try_it(vault)
    done = try_it(vault, accept_loss=True)
    assert 95 < len(readable(vault, *NODE_NAMES)) < 100
    assert done.unread > 0


KEY_IDS = ["".join(letters) for letters in itertools.islice(itertools.product("abcdefgh", repeat=8), 3000)]


def test_what_can_be_read_behind_a_bad_block_of_revoked_keys_is_kept(vault: Vault) -> None:
    """A revoked key that was dropped with the block would be accepted again."""
    revoked = {layout.revoked_key(key_id): layout.REVOKED_VALUE for key_id in KEY_IDS}
    vault.store(revoked, "n1", "n2")
    shutil.rmtree(vault.directory / "n3")
    for node in ("n1", "n2"):
        rot(vault, node, 0.2)
    with pytest.raises(Refused, match="revoked keys among them"):
        try_it(vault)
    done = try_it(vault, accept_loss=True)
    with closing(vault.open("n1")) as store:
        left = dict(store.scan(layout.REVOKED))
    assert done.facts_unread == ["revoked keys"]
    assert len(KEY_IDS) - 300 < len(left) < len(KEY_IDS)
    assert left.items() <= revoked.items()


def test_an_owner_whose_epoch_nobody_can_read_is_in_that_of_its_newest_record_at_least(vault: Vault) -> None:
    newest = vault.record("a", epoch=3)
    vault.store(vault.record("b") | newest | {layout.register_key(bytes(16)): b"?"}, "n1", "n2")
    shutil.rmtree(vault.directory / "n3")
    done = try_it(vault, accept_loss=True)
    assert done.facts_unread == ["epochs"]
    for node in ("n1", "n2"):
        with closing(vault.open(node)) as store:
            assert [layout.read_register(value)[0] for _, value in store.scan(layout.REGISTER)] == [3]


def test_a_store_that_its_node_gave_up_for_a_bad_block_counts_where_it_can_be_read(vault: Vault) -> None:
    """The store may have the only readable copy of a part. A store that hides records for another reason has no voice."""
    vault.store(some(vault, 0), "n1", "n3")
    rot(vault, "n1", 0.3)
    rot(vault, "n3", 0.7)
    mark_untrusted(vault.directory / "n1", "its store holds records that a look-up does not find")
    with pytest.raises(Refused, match="--accept-loss"):
        try_it(vault)
    mark_untrusted(vault.directory / "n1", "a block of its store fails its checksum")
    assert try_it(vault).rebuilt.keys() == {"n1", "n3"}
    assert readable(vault, *NODE_NAMES) == some(vault, 0)
    assert vault.votes("n1")


def test_a_disk_that_is_still_listed_counts_where_it_was_set_aside(vault: Vault) -> None:
    """`init --replace` has run, but the new disk has not entered any view yet."""
    vault.store(some(vault, 0), "n1", "n3")
    aside = replaced(vault, entered=False)
    rot(vault, "n1")
    done = try_it(vault)
    assert readable(vault, "n1", "n2") == some(vault, 0)
    assert (done.unread, done.donors) == (0, {"n3": 0})
    shutil.rmtree(vault.directory / "n1")
    shutil.rmtree(vault.directory / "n3")
    with pytest.raises(Refused, match=f"have all that was acknowledged; give {aside} the name"):
        try_it(vault)


def test_a_disk_that_is_whole_makes_one_that_waits_whole_with_the_old_one_beside_it(vault: Vault) -> None:
    """n1 is gone, n2 is whole, and n3's new disk waits. Together, n2 and n3's old disk have everything."""
    vault.store(some(vault, 0), "n1", "n3")
    remember(vault, Mark(1, 10))
    replaced(vault)
    shutil.rmtree(vault.directory / "n1")
    done = try_it(vault)
    assert readable(vault, "n2", "n3") == some(vault, 0)
    assert vault.votes("n3")
    assert vault.identity("n3").mode is Mode.ACTIVE
    assert done.rebuilt.keys() == {"n3"}


def test_a_donor_contradicts_nothing_that_two_have(vault: Vault) -> None:
    """Two disks outweigh another value in the same token, another writer's version, and bytes that are not authentic."""
    ((key, record),) = vault.record("acknowledged", clock=2 << 16).items()
    ((_, other),) = vault.record("never acknowledged").items()
    ((rotten_key, rotten),) = vault.record("rotten").items()
    leftover = vault.record("a leftover")
    vault.store({key: record}, "n1", "n2")
    aside = replaced(vault)
    shutil.move(aside, vault.directory / "elsewhere")
    with closing(vault.open("n3")) as store:
        store.write(
            {key: other[: records.HEADER_BYTES] + record[records.HEADER_BYTES - 1 :], rotten_key: flip(rotten), **leftover}
        )
    done = try_it(vault, donors=[vault.directory / "elsewhere"])
    assert readable(vault, "n1", "n2") == {key: record} | leftover
    assert done.donors == {"n3": 1, str(vault.directory / "elsewhere"): 0}


@pytest.mark.parametrize("unread", [True, False])
def test_two_donors_that_disagree_leave_neither_value_where_two_could_not_be_read(unread: bool) -> None:
    """In an unread part either value may have been acknowledged, so the other must not replace it. Elsewhere neither was."""
    key, one, other = copies.KEY, copies.record(copies.ONE), copies.record(copies.OTHER)
    sinks = {"n1": copies.holding(copies.NAME), "n2": copies.holding(copies.NAME)}
    donors = {"x": copies.holding({key: one}), "y": copies.holding({key: other})}
    united = unite(sinks, sinks, donors, {end_of_part(key)} if unread else (), copies.NARROW, lambda words: None)
    assert [store.get([key]) for store in sinks.values()] == [[records.CONFLICT_MARK if unread else one]] * 2
    assert united.given == {"x": 1, "y": int(unread)}


def test_another_cluster_s_disk_gives_nothing(vault: Vault, tmp_path: Path) -> None:
    stranger = Vault(tmp_path / "other")
    with pytest.raises(Refused, match="expected the data directory of a disk of this cluster"):
        try_it(vault, donors=[stranger.directory / "n3"])
    shutil.copytree(stranger.directory / "n3", vault.directory / "n3.set-aside-1")
    assert try_it(vault).donors == {}


def test_the_command_says_what_was_made_anew_and_who_gave_what(vault: Vault) -> None:
    vault.store(some(vault, 0), "n1", "n3")
    remember(vault, Mark(1, 10))
    replaced(vault)
    rot(vault, "n1")
    result = CliRunner().invoke(main, ["recover", str(vault.directory)])
    assert result.exit_code == 0, result.output
    assert "n1: its store was made anew, of" in result.output
    assert f"could not be read to its end, is {vault.directory}/n1/store.damaged.set-aside-1" in result.output
    assert "n3 had no voice in this" in result.output
