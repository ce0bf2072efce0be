"""One input over one connection: sends its pieces, and reads the answer.

#cuts 12,40 pause 5          may stand before the bytes: where to cut them, and milliseconds between the pieces.
"""

import asyncio
import itertools
import re
from dataclasses import dataclass, field
from random import Random

import httptools

#: Seconds without a byte after which, once there was an answer, nothing more is expected.
_PATIENCE_ANSWERED = 0.03
_CONNECT_SECONDS = 30.0
_PIECES = re.compile(rb"#cuts ([0-9,]*) pause ([0-9]{1,3})\n")


def in_pieces(rng: Random, raw: bytes) -> bytes:
    """Makes an input of ``raw``, whole or in several pieces."""
    if rng.random() < 0.6 or len(raw) < 2:
        return raw
    count = min(len(raw) - 1, rng.choice((1, 1, 2, 3, 8, 40)))
    cuts = sorted(rng.sample(range(1, len(raw)), count))
    return b"#cuts %b pause %d\n" % (",".join(map(str, cuts)).encode(), rng.choice((0, 0, 1, 5))) + raw


def pieces_of(data: bytes) -> tuple[list[bytes], float]:
    """Returns the pieces, and the seconds between them."""
    match = _PIECES.match(data)
    if match is None:
        return [data], 0.0
    raw = data[match.end() :]
    cuts = sorted({min(int(cut), len(raw)) for cut in match[1].split(b",") if cut} | {0, len(raw)})
    return [raw[start:end] for start, end in itertools.pairwise(cuts)], int(match[2]) / 1000


@dataclass(slots=True)
class Answers:
    """What came back: statuses of complete and partial answers, bodies of unsuccessful ones, and whether it is HTTP at all.

    Receives the callbacks of httptools.
    """

    is_http: bool
    raw: bytearray = field(default_factory=bytearray)
    statuses: list[int] = field(default_factory=list)
    whole: int = 0
    refusals: bytearray = field(default_factory=bytearray)
    is_closed: bool = False
    _parser: httptools.HttpResponseParser = field(init=False)

    def __post_init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        self.raw += data
        if self.is_http:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserError:
                self.is_http = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.refusals += name + value if self._parser.get_status_code() >= 300 else b""

    def on_headers_complete(self) -> None:
        self.statuses.append(self._parser.get_status_code())

    def on_body(self, body: bytes) -> None:
        if self.statuses[-1] >= 300:
            self.refusals += body

    def on_message_complete(self) -> None:
        self.whole += self.statuses[-1] >= 200


async def exchange(
    host: str, port: int, pieces: list[bytes], pause: float, patience: float = 0.25, *, http: bool = True
) -> Answers:
    """Sends the pieces, and reads during and after that, until the other side closes or no more is expected.

    ``patience``: seconds without a byte after which no answer is expected any more.
    """
    answers = Answers(is_http=http)
    reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), _CONNECT_SECONDS)
    sending = asyncio.ensure_future(_send(writer, pieces, pause))
    try:
        while True:
            try:
                patient = _PATIENCE_ANSWERED if answers.whole and sending.done() else patience
                received = await asyncio.wait_for(reader.read(1 << 18), patient)
            except TimeoutError:
                if sending.done():
                    break
                continue
            except OSError:
                answers.is_closed = True
                break
            if not received:
                answers.is_closed = True
                break
            answers.feed(received)
    finally:
        sending.cancel()
        writer.transport.abort()
    return answers


async def _send(writer: asyncio.StreamWriter, pieces: list[bytes], pause: float) -> None:
    try:
        for number, piece in enumerate(pieces):
            if number and pause:
                await asyncio.sleep(pause)
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass  # the other side closed before it had all: its answer is still read
