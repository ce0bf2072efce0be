"""Bytes for a connection to the API: valid requests, invalid ones, and bytes that are not HTTP at all.

A connection carries one or more requests. Each is a head and a body, with parts changed in ways that parsers treat differently.
"""

from random import Random

from tests.fuzz.canaries import KEY_PLACE, TOKEN_PLACES, VALUE, WRONG_KEY
from tests.fuzz.mutation import mutate

_JSON = b"application/json"
_CANARY = VALUE.encode()
_BODIES = (
    (b"/tokenize", b'{"values": ["%b", 42, null]}' % _CANARY),
    (b"/tokenize", b'{"record": {"id": 1, "ssn": "%b"}}' % _CANARY),
    (b"/detokenize", b'{"tokens": ["%b", "%b"]}' % TOKEN_PLACES[:2]),
    (b"/detokenize", b'{"token": "%b"}' % TOKEN_PLACES[2]),
    (b"/retokenize", b'{"tokens": ["%b"]}' % TOKEN_PLACES[3]),
    (b"/tokens", b'{"values": ["%b"]}' % _CANARY),
    (b"/rotate-epoch", b'{"from_epoch": 900}'),
)
_PATHS = (b"/epoch", b"/fields", b"/health", b"/livez", b"/readyz", b"/limits", b"/openapi.json", b"/metrics")
_ODD_PATHS = (
    *(b"*", b"//", b"/../epoch", b"/%2e%2e/", b"/epoch?x=1", b"/epoch#x", b"http://a/epoch", b"a:443", b"/\xff", b"/%ff%00"),
    *(b"/" + b"x" * 9000, b"/epoch;a", b"", b"epoch", b"/tokenize/", b"/%74okenize", b"/" + _CANARY, b"/epoch\t"),
)
_METHODS = (
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT", b"PRI", b"get", b"G\0T", b"", b"X" * 300,
)  # fmt: skip
_VERSIONS = (b"HTTP/1.0", b"HTTP/1.1", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"HTTP/11", b"http/1.1", b"", b"HTTP/1.1 x")
#: Lines of a head that have a meaning somewhere.
_LINES = (
    b"Connection: close", b"Connection: keep-alive", b"Connection: upgrade", b"Upgrade: h2c", b"Upgrade: websocket",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version: 13", b"HTTP2-Settings: AAMAAABk",
    b"Expect: 100-continue", b"Expect: x", b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: -1",
    b"Content-Length: +5", b"Content-Length: 5, 5", b"Content-Length: 99999999999999999999", b"Content-Length: 0x5",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: identity",
    b"Transfer-Encoding : chunked", b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding:\x0bchunked",
    b"Content-Encoding: gzip", b"Content-Type: text/plain", b"Content-Type: application/json; charset=latin-1",
    b"Host: a\r\nHost: b", b"Host:", b" folded: x", b": no name", b"no colon", b"A\0B: x", b"N: a\0b", b"N: \xff\xfe",
    b"\xff: x", b"X: " + b"y" * 70_000, b"\r\n".join([b"A: b"] * 300), b"X-Request-ID: one", b"X-Request-ID: a b",
    b"X-Purpose: why", b"X-Request-ID: " + b"i" * 200, b"Authorization: Basic eDp5", b"Authorization: Bearer",
    b"Authorization:\tBearer  x", b"Authorization: Bearer " + WRONG_KEY.encode(), b"X-API-Key: " + WRONG_KEY.encode(),
    b"X-API-Key: " + KEY_PLACE, b"Cookie: " + _CANARY, b"Range: bytes=0-", b"If-None-Match: *", b"Forwarded: for=1",
    b"Accept: text/html", b"Trailer: A",
)  # fmt: skip
_NOT_HTTP = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # TLS
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    b"SSH-2.0-x\r\n",
    b"QVPEER\x00\x01" + bytes(48),
    b"\x05\x01\x00",
    b"\r\n\r\n\r\n",
    b"GET /livez\r\n",
    b"\0" * 100,
)
_CHUNK_SIZES = (
    b"-1", b"0x5", b"ffffffffffffffff", b"10000000000000000", b"5 ", b" 5", b"+5", b"g", b"", b"00000000005", b"7fffffff",
)  # fmt: skip
_WORDS = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b"\0", b":", b"0\r\n\r\n", *_LINES[:20], b"GET /livez HTTP/1.1\r\n\r\n",
)  # fmt: skip


def connection(rng: Random) -> bytes:
    if rng.random() < 0.03:
        return rng.choice(_NOT_HTTP) if rng.random() < 0.5 else rng.randbytes(rng.choice((1, 20, 500, 5000)))
    count = rng.choice((1, 1, 1, 1, 2, 3, 10, 60))
    if count > 3:
        return _request(rng) * count
    sent = b"".join(_request(rng) for _ in range(count))
    if rng.random() < 0.3:
        sent = mutate(rng, sent, _WORDS)
    if rng.random() < 0.05:
        sent += rng.randbytes(rng.choice((1, 100, 30_000)))
    return sent


def _request(rng: Random) -> bytes:
    if rng.random() < 0.3:
        method, path, content = b"GET", rng.choice(_PATHS), b""
    else:
        method, (path, content) = b"POST", rng.choice(_BODIES)
    if rng.random() < 0.1:
        method = rng.choice(_METHODS)
    if rng.random() < 0.1:
        path = rng.choice(_ODD_PATHS)
    version = rng.choice(_VERSIONS) if rng.random() < 0.08 else b"HTTP/1.1"
    lines = [b"Host: x", *_key(rng)]
    if content:
        lines.append(b"Content-Type: " + _JSON)
        if rng.random() < 0.4:
            lines.append(b"Transfer-Encoding: chunked")
            content = _chunked(rng, content)
        elif rng.random() < 0.93:
            lines.append(b"Content-Length: %d" % len(content))
    if rng.random() < 0.35:
        lines += rng.choices(_LINES, k=rng.choice((1, 1, 2, 4)))
        rng.shuffle(lines)
    end = b"\n" if rng.random() < 0.02 else b"\r\n"
    return b" ".join((method, path, version)) + end + end.join(lines) + end + end + content


def _key(rng: Random) -> list[bytes]:
    """The header of a key in force, of another key, or of none."""
    return rng.choice(([b"Authorization: Bearer " + KEY_PLACE], [b"Authorization: Bearer " + WRONG_KEY.encode()], []))


def _chunked(rng: Random, content: bytes) -> bytes:
    """Chunks of some size, with extensions and trailers, some of them invalid."""
    size = rng.choice((1, 3, 10, 1000))
    sent = b""
    for start in range(0, len(content), size):
        piece = content[start : start + size]
        length = b"%x" % len(piece) if rng.random() < 0.97 else rng.choice(_CHUNK_SIZES)
        extension = rng.choice((b"", b"", b"", b";", b";a=b", b';a="\r\n"', b";" + b"x" * rng.choice((1, 300, 20_000))))
        sent += length + (extension if rng.random() < 0.1 else b"") + b"\r\n" + piece + b"\r\n"
    trailers = rng.choices((*_LINES, b"Authorization: Bearer " + KEY_PLACE), k=rng.choice((0, 0, 0, 1, 3, 200)))
    end = rng.choice((b"0", b"0", b"0", b"0", b"00", b"0;x", b"")) + b"\r\n"
    return sent + end + b"".join(line + b"\r\n" for line in trailers) + b"\r\n"


def whole_request(rng: Random, path: str, kind: bytes, content: bytes) -> bytes:
    """A request that is valid except for its body; now and then without a key in force."""
    key = KEY_PLACE if rng.random() < 0.9 else WRONG_KEY.encode()
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nContent-Type: %b\r\n" % (path.encode(), key, kind)
    return head + b"Content-Length: %d\r\n\r\n" % len(content) + content
