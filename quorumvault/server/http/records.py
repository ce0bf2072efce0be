"""The records of a request: taken apart, their configured fields found, and put together again."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from msgspec import Raw

from quorumvault.errors import Invalid, ItemError
from quorumvault.formats.fields import Slot
from quorumvault.formats.json import Document
from quorumvault.server.http import item_errors
from quorumvault.server.http.job import Job
from quorumvault.server.http.memory import cost_of_places

_NULL = b"null"
#: Places in records whose memory is asked for at once.
_PAID_AT_ONCE = 1024


class Place(NamedTuple):
    """A configured field that was found with something in it: the index of its record, and where there."""

    record: int
    slot: Slot


@dataclass(frozen=True, slots=True, repr=False)
class Records:
    """``documents`` in the order of the request, None for what is no object and is listed in ``bad``."""

    documents: list[Document | None]
    places: list[Place]
    bad: list[ItemError]

    def encode(self, spoiled: Container[int] = ()) -> Iterator[bytes]:
        """The records as JSON, in order; null for those that could not be read, and for the indexes in ``spoiled``.

        Each one is let go once it was asked for.
        """
        for index, document in enumerate(self.documents):
            self.documents[index] = None
            yield _NULL if document is None or index in spoiled else document.encode()


async def read_records(job: Job, raws: Sequence[Raw]) -> Records:
    """``raws`` are parts of a body that check_json_text let pass. Raises TooManyItems, TooLarge, Busy."""
    fields, limits, turns = job.services.fields, job.services.limits, job.turns
    item_errors.require_count(len(raws), limits.items, "records")
    records = Records([], [], [])
    for index, raw in enumerate(raws):
        if turns.over():
            await turns.next()
        try:
            document = Document.parse(bytes(raw))
        except Invalid as error:
            records.documents.append(None)
            records.bad.append(item_errors.item_error(index, error))
            continue
        records.documents.append(document)
        for slot in fields.walk(document):
            if turns.over():
                await turns.next()
            if slot is None:
                continue
            if len(records.places) % _PAID_AT_ONCE == 0:
                await job.pay(cost_of_places(_PAID_AT_ONCE))
            records.places.append(Place(index, slot))
            item_errors.require_count(len(records.places), limits.record_values, "configured values in its records")
    return records
