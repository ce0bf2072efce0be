"""Encodes values as JSON texts, and cuts lists of texts into bodies within a node's limits. Pure."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from quorumvault import errors
from quorumvault.client.results import Limits, Value
from quorumvault.client.scalars import plain
from quorumvault.crypto.canonical import from_json
from quorumvault.errors import ItemError

#: The most bad items that one error lists, as in the API.
_ERRORS_LISTED = 100
_encode = msgspec.json.Encoder().encode
_skip = msgspec.json.Decoder(msgspec.Raw).decode
_decode_string = msgspec.json.Decoder(str).decode


class _Unfit(Exception):
    """The reason why one item cannot be sent, in words that do not show the item."""


def encode_value(value: Value) -> bytes | None:
    """Returns the JSON text of a value, None for null. NaN, NA and NaT are null; scalars of numpy and pyarrow are unwrapped."""
    if isinstance(value, str):
        return _encode_text(value)
    if not isinstance(value, int):
        value = plain(value)
    if value is None:
        return None
    if isinstance(value, str):
        return _encode_text(value)
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, int):
        return _encode_int(value)
    if isinstance(value, msgspec.Raw):
        return _checked(bytes(value))
    if isinstance(value, float):
        raise _Unfit("a number with a fraction has no one spelling: send it as a string")
    raise _Unfit(f"a {type(value).__name__} cannot be tokenized: send a string, an integer, a boolean or None")


def _encode_int(value: int) -> bytes:
    try:
        return b"%d" % value
    except ValueError:
        limit = sys.get_int_max_str_digits()
        raise _Unfit(f"Python converts no integer of more than {limit} digits: send msgspec.Raw with its digits") from None


def _checked(raw: bytes) -> bytes | None:
    try:
        text = bytes(_skip(raw))
        canonical = from_json(text)
    except (ValueError, RecursionError):
        raise _Unfit("this msgspec.Raw is no JSON text") from None
    if canonical is None and text != b"null":
        raise _Unfit("an object, an array, or a number with a fraction or an exponent: send it as a string")
    return None if canonical is None else text


def encode_token(token: str | None) -> bytes | None:
    if not isinstance(token, str):
        token = plain(token)
    if token is None:
        return None
    if not isinstance(token, str):
        raise _Unfit("a token is a string")
    return _encode_text(token)


def _encode_text(text: str) -> bytes:
    try:
        return _encode(text if type(text) is str else str.__str__(text))  # a string of numpy or of an enumeration
    except UnicodeEncodeError:
        raise _Unfit("a string with a lone surrogate is no Unicode text") from None


def encode_record(record: Mapping[str, Any]) -> bytes:
    if not isinstance(record, Mapping):
        raise _Unfit("a record is a dictionary")
    # Not msgspec: it would encode dates as strings, and they would come back as strings.
    try:
        try:
            return _json_of(record)
        except ValueError:
            return _json_of(_without_nan(record))
    except UnicodeEncodeError:
        raise _Unfit("a string with a lone surrogate is no Unicode text") from None
    except (TypeError, ValueError, RecursionError):
        raise _Unfit("a record is a dictionary of strings, finite numbers, booleans, None, lists and dictionaries") from None


def _json_of(record: Any) -> bytes:
    return json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_scalar).encode()


def _scalar(value: Any) -> Any:
    found = plain(value)
    if found is value:
        raise TypeError(type(value).__name__)
    return found


def _without_nan(value: Any) -> Any:
    """Replaces each NaN by None: JSON has no NaN, and pandas uses it for a missing number."""
    if isinstance(value, Mapping):
        return {name: _without_nan(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(member) for member in value]
    return plain(value) if isinstance(value, float) else value


def encode_all(
    items: Sequence[Any], encode: Callable[[Any], bytes | None], error: type[errors.RequestError]
) -> list[bytes | None]:
    """Returns every item's JSON text. Raises ``error``, which lists the items without one."""
    if isinstance(items, str | bytes):
        raise TypeError("expected a sequence of items, not one: a string would be taken for its characters")
    if isinstance(items, Mapping) or hasattr(items, "columns"):
        raise TypeError("expected a sequence of items; of a frame, quorumvault.tokenize(frame, columns=...) takes columns")
    texts: list[bytes | None] = []
    bad: list[ItemError] = []
    for index, item in enumerate(items):
        try:
            texts.append(encode(item))
        except _Unfit as unfit:
            bad.append(ItemError(index, error.code, str(unfit)))
    if bad:
        raise refusal(error, bad)
    return texts


def refusal(kind: type[errors.RequestError], bad: Sequence[ItemError]) -> errors.RequestError:
    """Makes an error that lists the bad items; its message says what is wrong with the first one."""
    first = bad[0]
    place = f"item {first.index}" + (f", {first.path}" if first.path else "")
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    return kind(f"{place}: {first.detail}{more}", errors=tuple(bad[:_ERRORS_LISTED]))


def about(error: errors.RequestError, place: Callable[[int], int | None]) -> errors.RequestError:
    """Makes the same error with the caller's indices: a node counts items within one request, the caller over all requests.

    ``place`` maps a node's index to the caller's, or returns None for an index that the node cannot mean.
    """
    placings = ((item, place(item.index)) for item in error.errors)
    items = [dataclasses.replace(item, index=index) for item, index in placings if index is not None]
    if not items:
        return error
    placed = refusal(type(error), items)
    placed.asked, placed.request_id = error.asked, error.request_id
    return placed


def check_sizes(texts: Sequence[bytes | None], limits: Limits) -> None:
    """Raises ValueTooLarge for values that no request can carry, before any request is sent."""
    bad = []
    for index, text in enumerate(texts):
        if text is None or len(text) <= limits.value_bytes:
            continue
        size = _value_bytes(text)
        if size > limits.value_bytes:
            words = f"a value of {size:,} bytes; a node takes {limits.value_bytes:,}"
            bad.append(ItemError(index, errors.ValueTooLarge.code, words))
    if bad:
        raise refusal(errors.ValueTooLarge, bad)


def _value_bytes(text: bytes) -> int:
    """Returns a value's size in bytes as a node counts it: a string's UTF-8 without quotes and escapes, an integer's digits."""
    return len(_decode_string(text).encode()) if text.startswith(b'"') else len(text)


def record_values(record: bytes) -> int:
    """Returns an upper bound on the number of configured values in a record's JSON text, whichever fields are configured.

    Each configured value is or contains at least one leaf of its own, and a comma separates any two leaves.
    """
    return record.count(b",") + 1


def cut(texts: Sequence[bytes], limits: Limits, envelope: int, values: Callable[[bytes], int] = lambda text: 0) -> list[slice]:
    """Cuts texts into runs. Each run, joined by commas in an envelope of ``envelope`` bytes, is within the limits.

    ``values`` returns how many of ``limits.record_values`` a text uses. A text over the limit is sent alone, and the node judges
    it. Raises TooLarge for a text that alone is larger than a body may be.
    """
    room = limits.body_bytes - envelope
    for index, text in enumerate(texts):
        if len(text) >= room:
            words = f"{len(text) + 1 + envelope:,} bytes; a node takes bodies of {limits.body_bytes:,}"
            raise refusal(errors.TooLarge, [ItemError(index, errors.TooLarge.code, words)])
    return list(runs(((len(text) + 1, values(text)) for text in texts), limits, room))


def runs(weights: Iterable[tuple[int, int]], limits: Limits, room: int) -> Iterator[slice]:
    """Cuts items into runs of up to ``room`` bytes. ``weights``: each item's bytes, and its part of ``limits.record_values``."""
    start = stop = size = held = 0
    for needed, weight in weights:
        if stop > start and (size + needed > room or stop - start == limits.items or held + weight > limits.record_values):
            yield slice(start, stop)
            start, size, held = stop, 0, 0
        stop, size, held = stop + 1, size + needed, held + weight
    if stop > start:
        yield slice(start, stop)


def body(name: str, texts: Sequence[bytes]) -> bytes:
    """Returns an object with one member, a list: the request body of /tokenize and /detokenize."""
    return b'{"%b":[%b]}' % (name.encode(), b",".join(texts))
