"""Small worlds with damaged disks: a disk never says that a lost record is absent, and nothing takes the record's place."""

from dataclasses import replace

from quorumvault.server.storage import layout
from tests.model.damage import Damage
from tests.model.scopes import A_NARROW, GET, GET_NARROW, NARROW, OWNER, PUT, VALUE, C, Scope, digest_of
from tests.model.world import KEYRING

ONE, ONE_NARROW = (Damage(layout.record_keys(OWNER.id, [1], [digest_of(VALUE, keyring)])[0][1:]) for keyring in (KEYRING, NARROW))
TWO, TWO_NARROW = replace(ONE, gaps=2, all_lost=True), replace(ONE_NARROW, gaps=2)
APART, APART_NARROW, TWO_APART, TWO_APART_NARROW = (replace(each, apart=True) for each in (ONE, ONE_NARROW, TWO, TWO_NARROW))

#: Explored by the test suite. "twice": two disks may have gaps at once.
SMALL = {
    "damaged-put-get": Scope((PUT, GET), at_least=20_000, damage=APART),
    "damaged-two-values": Scope((A_NARROW, C), NARROW, 10_000, damage=APART_NARROW),
    "damaged-twice-two-values": Scope((A_NARROW, C), NARROW, 20_000, damage=TWO_NARROW),
    "damaged-twice-put-get": Scope((PUT, GET), at_least=50_000, damage=TWO),
}
#: Explored by hand.
LARGE = {
    "damaged-twice-two-values-apart": Scope((A_NARROW, C), NARROW, damage=TWO_APART_NARROW),
    "damaged-twice-put-get-apart": Scope((PUT, GET), damage=TWO_APART),
    "damaged-two-values-get": Scope((A_NARROW, C, GET_NARROW), NARROW, damage=ONE_NARROW),
    "damaged-twice-two-values-get": Scope((A_NARROW, C, GET_NARROW), NARROW, damage=TWO_NARROW),
}
