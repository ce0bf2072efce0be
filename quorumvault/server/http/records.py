"""Takes the records of a request apart, finds their configured fields, and puts the records together again."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from msgspec import Raw

from quorumvault.errors import Invalid
from quorumvault.formats.fields import Slot
from quorumvault.formats.json import Document
from quorumvault.formats.rewriting import may_escape_names, rewritten
from quorumvault.server.http.answer import Part
from quorumvault.server.http.dependencies import AdmittedRequest
from quorumvault.server.http.item_errors import ItemErrors, require_count
from quorumvault.server.http.memory import cost_of_places

_NULL = b"null"
#: Places in records whose memory is paid at once.
_PAID_AT_ONCE = 1024


class Place(NamedTuple):
    """A configured field with a value: the index of its record, and its slot in that record."""

    record: int
    slot: Slot


@dataclass(frozen=True, slots=True, repr=False)
class Records:
    """``documents`` in the order of the request, None for a document that is not an object."""

    documents: list[Document | None]
    places: list[Place]

    def encode(self, spoiled: Container[int] = ()) -> Iterator[Part]:
        """Yield the records as JSON, in order; null for those that could not be read, and for the indexes in ``spoiled``.

        Forgets each record once it was asked for.
        """
        for index, document in enumerate(self.documents):
            self.documents[index] = None
            if document is None or index in spoiled:
                yield _NULL
            else:
                yield rewritten(document) if may_escape_names(document.text) else document.encode()


async def read_records(admitted: AdmittedRequest, raws: Sequence[Raw], errors: ItemErrors) -> Records:
    """Parse the records of a body that is known to be JSON, and find their configured fields. ``errors`` gets what is no record.

    Raises TooManyItems, TooLarge, Busy.
    """
    fields, limits, turns = admitted.services.fields, admitted.services.limits, admitted.turns
    require_count(len(raws), limits.items, "records")
    records = Records([], [])
    for index, raw in enumerate(raws):
        if turns.over():
            await turns.next()
        try:
            document = Document.parse(bytes(raw))
        except Invalid as error:
            records.documents.append(None)
            errors.add(index, error)
            continue
        records.documents.append(document)
        for slot in fields.walk(document):
            if turns.over():
                await turns.next()
            if slot is None:
                continue
            if len(records.places) % _PAID_AT_ONCE == 0:
                await admitted.pay(cost_of_places(_PAID_AT_ONCE))
            records.places.append(Place(index, slot))
            require_count(len(records.places), limits.record_values, "configured values in its records")
    return records
