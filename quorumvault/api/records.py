"""The records of a request: taken apart, their configured fields found, and put together again."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from msgspec import Raw

from quorumvault.api import faults
from quorumvault.config import Limits
from quorumvault.errors import Invalid, ItemError
from quorumvault.fields import FieldSet, Slot
from quorumvault.jsontext import Document

#: A request of 10,000 records would keep the event loop for a quarter of a second, and pings and /health with it. After this
#: many records, a few milliseconds, everybody else has a turn.
_SLICE = 200


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

    def encode(self, spoiled: Container[int] = ()) -> list[Raw | None]:
        """The records as JSON; None for those that could not be read, and for the indexes in ``spoiled``."""
        return [
            None if document is None or index in spoiled else Raw(document.encode())
            for index, document in enumerate(self.documents)
        ]


async def read_records(raws: Sequence[Raw], fields: FieldSet, limits: Limits) -> Records:
    """``raws`` are parts of a body that check_json_text let pass. Raises TooManyItems."""
    faults.require_count(len(raws), limits.items, "records")
    records = Records([], [], [])
    for index, raw in enumerate(raws):
        if index % _SLICE == _SLICE - 1:
            await asyncio.sleep(0)
        try:
            document = Document.parse(bytes(raw))
        except Invalid as error:
            records.documents.append(None)
            records.bad.append(faults.item_error(index, error))
            continue
        records.documents.append(document)
        records.places.extend(Place(index, slot) for slot in fields.find(document))
        faults.require_count(len(records.places), limits.record_values, "configured values in its records")
    return records
