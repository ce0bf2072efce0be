"""The typed canonical form of a value: what is hashed and sealed.

    string   "s" + its UTF-8 bytes, not normalised
    integer  "i" + its decimal digits, "-" before a negative one, no leading zeros ("-0" is "0")
    boolean  "t" or "f"

The first byte is the type, so "1", 1 and true are three values. Integers stay text from end to end: they may have as many digits
as the value limit allows, but Python refuses to convert more than 4,300 (a guard against quadratic time).
"""

import re
from typing import Final

import msgspec

#: The first byte of a text's canonical form, before its UTF-8.
TEXT_PREFIX: Final = b"s"
_INTEGER: Final = b"i"
_TRUE: Final = b"t"
_FALSE: Final = b"f"
_JSON_INTEGER = re.compile(rb"-?(?:0|[1-9][0-9]*)")
_decode_string = msgspec.json.Decoder(str).decode

#: A value for a JSON encoder: integers are raw digits.
JSONValue = str | bool | msgspec.Raw


def from_str(text: str) -> bytes:
    """The canonical form of a text. Raises UnicodeEncodeError for a lone surrogate, which is not Unicode text."""
    return TEXT_PREFIX + text.encode()


def from_json(raw: bytes) -> bytes | None:
    """The canonical form of a JSON scalar as it is spelled; None for JSON that cannot be tokenized.

    This is null, an object, an array, or a number with a fraction or an exponent, whose spelling JSON does not preserve.
    """
    first = raw[:1]
    if first == b'"':
        return from_str(_decode_string(raw))
    if first == b"t":
        return _TRUE
    if first == b"f":
        return _FALSE
    if _JSON_INTEGER.fullmatch(raw):
        return _INTEGER + (b"0" if raw == b"-0" else raw)
    return None


def to_json(canonical: bytes) -> JSONValue:
    """The value of a canonical form, with its JSON type. Raises ValueError if the bytes are not a canonical form."""
    kind = canonical[:1]
    if kind == TEXT_PREFIX:
        return canonical[1:].decode()
    if kind == _INTEGER and _JSON_INTEGER.fullmatch(canonical, 1):
        return msgspec.Raw(canonical[1:])
    if canonical == _TRUE:
        return True
    if canonical == _FALSE:
        return False
    raise ValueError("not a canonical form")
