"""Canaries: values, a false API key, tokens, and the keys in force. They are planted in inputs and must never come out."""

from collections.abc import Iterable

VALUE = "CANARY-value-7f3a91"
#: Has the form of a key, but is none.
WRONG_KEY = "qvk_canary77_wrongkeywrongkeywrongkeywrongke2"
#: Placeholders in an input, for the key in force and for some issued tokens; each is as long as its replacement.
KEY_PLACE = b"qvk_KEYKEYKE_KEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKE"
TOKEN_PLACES = tuple(b"qv_1_" + b"%048d" % number for number in range(4))


class Planted:
    """Holds a key and tokens, puts them into inputs, and searches outputs for them, and for values."""

    def __init__(self, key: str, tokens: Iterable[str]) -> None:
        self._places = [(KEY_PLACE, key.encode()), *zip(TOKEN_PLACES, (token.encode() for token in tokens), strict=True)]
        digests = [token.rpartition(b"_")[2] for _, token in self._places[1:]]
        self._unseen = [*digests, key.rpartition("_")[2].encode(), VALUE.encode(), WRONG_KEY.rpartition("_")[2].encode()]

    def filled(self, data: bytes) -> bytes:
        for place, meant in self._places:
            data = data.replace(place, meant)
        return data

    def found_in(self, output: bytes) -> bool:
        return any(each in output for each in self._unseen)
