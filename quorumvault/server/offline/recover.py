"""Recover a cluster in which too few disks open to copy the others from them. Run by an operator, with all nodes stopped.

A power cut may leave other bytes where the last batch of a store's log should be, and then LevelDB refuses to open the store
(storage/leveldb_log.py has the table). If this hits one disk, that disk is copied anew from the two others (rejoin). If it hits
two or all three disks at once, there is no quorum to copy from. Then the recovery does this:

    cut      a log is cut after its last whole batch, unless later batches follow (storage/leveldb_log.py); a copy is kept aside
    read     everything readable is read from each store
    compare  each disk is compared with the marks of it on the other disks here (rollback_marks.py); a disk that is behind has
             no voice
    weigh    each part of the stores must have been read from two disks that count, or records may be lost
    unite    each store gets what it lacks from the others, synced: a batch torn on one disk may be whole on another. A store
             that cannot be read to its end is set aside, and made anew
    trust    the note that the store could not be opened is removed; its mark is raised past every mark that others can have of it

A torn batch had not been synced, so it was never acknowledged. But a last batch that was acknowledged and has rotted since looks
the same. What is known about that case, and what is not:

- If another disk here has a mark ahead of a disk, that disk has lost acknowledged writes, by rot or because it was restored from
  an older copy. It takes no part, and joins anew when the others run. The marks of all disks here count, including disks that
  take no part.
- Marks are saved within 0.1 s (docs/decisions/0011), and a disk elsewhere cannot be asked. So a loss may go unnoticed. An
  acknowledged record is on two disks, and survives unless both lost it. With all three disks here, one of them may therefore have
  lost its last batch unnoticed. With two disks here neither may, because the only other copy of the record may be on the third
  disk. ``Recovery.in_doubt`` says where that is so.
- A mark raised past all others hides a loss that a disk elsewhere could have proved. So a mark is raised only on a disk that was
  torn, or is accepted as an older copy; a loss on any other disk is still detected when the disk from elsewhere comes back.

Only disks that may vote count: active, listed in the newest view of all disks at hand, and not distrusted for any reason other
than damage. The other disks are left as they are, and are donors: what they have is taken, what they lack says nothing
(protocol/donors.py). Disks that were set aside, in and beside the data directories, or that the operator names, are donors too.
A donor counts as well if that view lists it, or listed it before a disk that was never complete took its slot. An operator who
has restored machines from older copies may let these disks take part too (``accept_older``): then writes acknowledged after the
copies were taken are lost, unless another disk here has them.

Rules kept here: donors have no voice; two lost disks need an operator.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from quorumvault.config.cluster import NodeConfig
from quorumvault.crypto.keys import Keyring
from quorumvault.errors import Refused
from quorumvault.model import NODE_NAMES, QUORUM
from quorumvault.protocol.donors import unread
from quorumvault.protocol.views import View
from quorumvault.server.offline.disks_at_hand import (
    Choice,
    Disk,
    Opened,
    donors_at_hand,
    lock,
    newest_view,
    open_donors,
    open_voters,
    standing_in,
    usable_among,
    voters_among,
)
from quorumvault.server.offline.stores_anew import Trust, make_anew
from quorumvault.server.offline.torn import Cut
from quorumvault.server.offline.unite import Tell, read_through, unite
from quorumvault.server.replica.copy import PARTS, facts_among


@dataclass(frozen=True, slots=True)
class Recovery:
    """By node: ``cuts``; ``added``, the records and registers that its store was given; ``left_out``, why it took no part.

    ``older`` says why a disk is known to be an older copy; it took part since the operator accepted that. ``in_doubt`` names the
    nodes whose log was cut while a disk was absent: if the cut write was acknowledged and rotted since, that disk may have it.
    ``records`` is the number of records on each disk afterwards. ``rebuilt``: the disks whose store was made anew, and where the
    old one is, if there was one. ``donors``: by name, how many entries it had and no other. ``unread``: parts of the stores that
    fewer than two disks could read, which the operator accepted; ``facts_unread``: what is in those that have no records.
    """

    cuts: Mapping[str, list[Cut]]
    added: Mapping[str, int]
    rebuilt: Mapping[str, Path | None]
    donors: Mapping[str, int]
    unread: int
    facts_unread: Sequence[str]
    left_out: Mapping[str, str]
    older: Mapping[str, str]
    in_doubt: Sequence[str]
    records: int


def recover(
    nodes: Sequence[NodeConfig], tell: Tell, *, accept_older: bool = False, accept_loss: bool = False, donors: Iterable[Path] = ()
) -> Recovery:
    """Cut torn tails off the stores of these nodes, and bring the stores to the same content. Can be repeated.

    ``tell`` hears what is being done; ``donors`` are data directories of other disks. Raises Refused if fewer than two disks can
    be used, or have read each part and that loss is not accepted; ConfigError if a node runs, StorageFailed if a store cannot be
    written. After an error no disk votes that was cut.
    """
    with ExitStack() as ending:
        choice = Choice(accept_older=accept_older)
        found = list(lock(nodes, ending, choice))
        asides = donors_at_hand(nodes, donors, found)
        newest = newest_view(aside.identity for aside in asides.values())
        voters = voters_among(found, newest, choice)
        choice.require_quorum(voters.keys() | {aside.identity.node for name, aside in asides.items() if name not in NODE_NAMES})
        cuts, opened = open_voters(voters.values(), ending, choice)
        without_voice = open_donors({name: aside for name, aside in asides.items() if name not in opened}, ending, tell)
        memory = {name: each.remembers for name, each in (opened | without_voice).items()}
        usable = usable_among(opened, memory, choice, tell)
        without_voice |= {node: each for node, each in opened.items() if node not in usable}
        assert newest is not None  # without a view no disk counts
        counted = usable | standing_in(without_voice, usable, newest, memory)
        choice.require_quorum(counted)
        gaps = unread([each.gaps for each in counted.values()])
        if gaps and not accept_loss:
            raise Refused(_unread_words(counted, gaps))
        anew = [disk for disk in found if disk.node in usable and (usable[disk.node].gaps or disk.unreadable)]
        if len(usable) < QUORUM:
            anew += _candidates(found, usable, newest, choice)
        kept = {node: each.store for node, each in usable.items() if node not in {disk.node for disk in anew}}
        if len(kept) + len(anew) < QUORUM:
            raise Refused(_places_words(counted))
        sinks = kept | make_anew(anew, ending)
        gifts = {name: each.store for name, each in without_voice.items() if name not in counted}
        keyring = Keyring(nodes[0].cluster.secrets.master.id, nodes[0].master_secret)
        united = unite(sinks, {name: each.store for name, each in counted.items()}, gifts, gaps, keyring, tell)
        records = read_through(next(iter(sinks.values()))).records
        torn = [node for node in usable if cuts[node] or voters[node].torn]
        older = {node: why for node, why in choice.older.items() if node in usable}
        trust = Trust(newest, memory.values())
        for node in kept:
            if node in torn or node in older:
                trust.again(voters[node], usable[node].at, kept[node])
        before = without_voice | opened
        rebuilt = {disk.node: trust.anew(disk, before.get(disk.node), sinks[disk.node]) for disk in anew}
        in_doubt = torn if len(counted) < len(NODE_NAMES) else []
        left_out = {node: why for node, why in choice.left_out.items() if node not in rebuilt}
        facts = facts_among(gaps)
        return Recovery(cuts, united.added, rebuilt, united.given, len(gaps), facts, left_out, older, in_doubt, records)


def _candidates(found: Iterable[Disk], usable: Mapping[str, Opened], newest: View, choice: Choice) -> list[Disk]:
    """Listed disks that cannot be read, or were never complete: given everything from the others, they are as good."""
    return [
        disk
        for disk in found
        if disk.node not in usable
        and disk.node not in choice.older
        and newest.lists(disk.identity.disk)
        and (disk.distrusted is None or disk.distrusted.only_damage)
    ]


def _unread_words(counted: Mapping[str, Opened], unread: Collection[bytes]) -> str:
    parts, facts = len(unread), facts_among(unread)
    damaged = ", ".join(f"{name} cannot read {len(each.gaps):,}" for name, each in counted.items() if each.gaps)
    among = f", {' and '.join(facts)} among them" if facts else ""
    return (
        f"two disks have to be able to read each part of the stores, and {parts:,} of {PARTS:,} parts only one can, or none "
        f"({damaged}){among}; what was acknowledged there may be on a disk that is not here: bring its data directory, "
        f"--donor PATH; or lose what is on none of these: --accept-loss"
    )


def _places_words(counted: Mapping[str, Opened]) -> str:
    asides = ", ".join(name for name in counted if name not in NODE_NAMES)
    return f"{' and '.join(counted)} have all that was acknowledged; give {asides} the name of its node's data directory again"
