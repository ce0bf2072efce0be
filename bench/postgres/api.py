"""One API process of the rival: ``python -m bench.postgres.api CLUSTER NODE PORT EVENTS``. PG* variables name the PostgreSQL.

It answers ``POST /tokenize`` and ``POST /detokenize`` as a node does, with the same bodies, API keys, hash, token and seal. It
writes one event line for each request, and hands it to the operating system before it sends the answer. uvicorn has the same loop
and parser as in the nodes, and memory is tuned alike.

A batch is one prepared statement in binary format and takes one round trip, without a transaction block. Its rows are sorted, so
that two batches with the same values cannot deadlock, and neighbours share index pages. The statement reads the owner's epoch in
the same snapshot: a batch of a past epoch writes nothing, and the process derives its tokens anew.

The rival leaves out, to its advantage: records, Arrow, request ids, memory and rate limits, and the comparison that detects two
values with one token.
"""

import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, Self

import msgspec
import uvicorn
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.work import Result, Results, TokensAsked, TokensGiven, Values
from chaos.testbed.cluster import HOST
from quorumvault.cli.process import expect_batches
from quorumvault.config.api_keys import ApiKey, KeyTable, Permission, load_keys
from quorumvault.config.cluster import load_node
from quorumvault.crypto.canonical import TEXT_PREFIX, from_str
from quorumvault.crypto.keys import Keyring
from quorumvault.crypto.tokens import format_tokens, is_token, parse_alike, parse_tokens
from quorumvault.model import FIRST_EPOCH, Owner

#: Connections of each API process; those of all three stay below ``max_connections``.
_CONNECTIONS = 8
_MOST_VALUES, _MOST_BYTES = 10_000, 64 << 10

_EPOCH = "SELECT epoch FROM owners WHERE id = %b::int4"
_PUT = """
WITH active AS (SELECT epoch FROM owners WHERE id = %(owner)b::int4),
put AS (
  INSERT INTO records (owner, epoch, digest, sealed)
  SELECT %(owner)b::int4, epoch, digest, sealed
  FROM active, unnest(%(digests)b::bytea[], %(sealed)b::bytea[]) AS new (digest, sealed)
  WHERE epoch = %(epoch)b::int4
  ON CONFLICT DO NOTHING
)
SELECT epoch FROM active
"""
_GET = "SELECT digest, sealed FROM records WHERE owner = %b::int4 AND epoch = %b::int4 AND digest = ANY(%b::bytea[])"

_encode = msgspec.json.Encoder().encode
_read_values = msgspec.json.Decoder(Values).decode
_read_tokens = msgspec.json.Decoder(TokensAsked).decode
_NOT_FOUND = Result("not_found")


class Refusal(Exception):
    """A refused request, to answer with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Event(msgspec.Struct, frozen=True):
    """One line of the event log, with the same members as a node's."""

    ts: float
    node: str
    event: str
    owner: str | None
    key_id: str | None
    items: int
    found: int
    outcome: int
    duration_ms: float


class Account(NamedTuple):
    """An owner's row. ``number`` stands for the owner in every record, since a name would be longer."""

    owner: Owner
    number: int


class Done(NamedTuple):
    """The body of an answer, and its content for the event."""

    body: bytes
    items: int
    found: int = 0


class Vault:
    """The two operations, over one pool of connections."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection], keyring: Keyring) -> None:
        self._pool = pool
        self._keyring = keyring
        #: The last known epoch of each owner. The statement reports if it is no longer the active one.
        self._epochs: dict[int, int] = {}

    async def tokenize(self, account: Account, body: bytes) -> Done:
        values = _read_values(body).values
        if not 0 < len(values) <= _MOST_VALUES:
            raise Refusal(422)
        canonicals = list(map(from_str, values))
        if max(map(len, canonicals)) > _MOST_BYTES + 1 or any(map(_looks_like_a_token, values)):
            raise Refusal(422)
        epoch = self._epochs.get(account.number, FIRST_EPOCH)
        while True:
            keys = self._keyring.epoch_keys(account.owner, epoch)
            digests = keys.digests(canonicals)
            rows = sorted(zip(digests, keys.sealer.seal(canonicals, digests), strict=True))
            parameters = {
                "owner": account.number,
                "epoch": epoch,
                "digests": [digest for digest, _ in rows],
                "sealed": [sealed for _, sealed in rows],
            }
            async with self._pool.connection() as connection:
                found = await (await connection.execute(_PUT, parameters, prepare=True, binary=True)).fetchone()
            assert found is not None
            if found[0] == epoch:
                return Done(_encode(TokensGiven(epoch, format_tokens(epoch, digests))), len(values))
            epoch = self._epochs[account.number] = found[0]

    async def detokenize(self, account: Account, body: bytes) -> Done:
        tokens = _read_tokens(body).tokens
        if not 0 < len(tokens) <= _MOST_VALUES:
            raise Refusal(422)
        alike = parse_alike(tokens)
        if alike is not None:
            epoch, digests = alike
            values = await self._values(account, epoch, digests)
            results = list(map(values.get, digests))
        else:
            results = await self._values_of_any(account, tokens)
        found = len(results) - results.count(None)
        told = [_NOT_FOUND if value is None else Result("ok", value) for value in results]
        return Done(_encode(Results(told, found, len(told) - found)), len(told), found)

    async def _values_of_any(self, account: Account, tokens: Sequence[str]) -> list[str | None]:
        parsed = parse_tokens(tokens)
        by_epoch: dict[int, dict[bytes, str]] = {}
        for epoch in {each[0] for each in parsed if each is not None}:
            digests = [each[1] for each in parsed if each is not None and each[0] == epoch]
            by_epoch[epoch] = await self._values(account, epoch, digests)
        return [None if each is None else by_epoch[each[0]].get(each[1]) for each in parsed]

    async def _values(self, account: Account, epoch: int, digests: Sequence[bytes]) -> dict[bytes, str]:
        """Returns the values of the digests that exist, by digest."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_GET, (account.number, epoch, list(digests)), prepare=True, binary=True)
            rows = await cursor.fetchall()
        held = [digest for digest, _ in rows]
        opened = self._keyring.epoch_keys(account.owner, epoch).sealer.open_all([sealed for _, sealed in rows], held)
        skip = len(TEXT_PREFIX)
        return {
            digest: canonical[skip:].decode() for digest, canonical in zip(held, opened, strict=True) if canonical is not None
        }


def _looks_like_a_token(value: str) -> bool:
    return value.startswith("qv_") and is_token(value)


class Api:
    """Endpoints around a vault: the key, the answer, the event."""

    def __init__(self, vault: Vault, keys: KeyTable, accounts: Mapping[Owner, Account], node: str, events: int) -> None:
        self._vault = vault
        self._keys = keys
        self._accounts = accounts
        self._node = node
        self._events = events

    @classmethod
    async def open(cls, pool: AsyncConnectionPool[AsyncConnection], directory: Path, node: str, events: Path) -> Self:
        """Opens the API with the secret and the API keys of the cluster in this directory, and so with the same tokens."""
        config = load_node(directory / "cluster.yaml", node)
        keys = load_keys(directory / "api_keys.yaml")
        async with pool.connection() as connection:
            for owner in keys.owners:
                await connection.execute("INSERT INTO owners (name) VALUES (%s) ON CONFLICT DO NOTHING", (owner.name,))
            numbers: dict[str, int] = dict(await (await connection.execute("SELECT name, id FROM owners")).fetchall())
        accounts = {owner: Account(owner, numbers[owner.name]) for owner in keys.owners}
        vault = Vault(pool, Keyring(config.cluster.secrets.master.id, config.master_secret))
        return cls(vault, keys, accounts, node, os.open(events, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))

    async def tokenize(self, request: Request) -> Response:
        return await self._answer(request, "tokenize")

    async def detokenize(self, request: Request) -> Response:
        return await self._answer(request, "detokenize")

    async def _answer(self, request: Request, operation: Permission) -> Response:
        begun = time.monotonic()
        done, status = Done(b"", 0), 200
        key = self._keys.authenticate(request.headers.get("authorization", "").removeprefix("Bearer "), 0.0)
        try:
            done = await self._carry_out(key, operation, await request.body())
        except Refusal as refusal:
            status = refusal.status
        except (msgspec.DecodeError, UnicodeError):
            status = 400
        owner, key_id = (None, None) if key is None else (key.owner.name, key.id)
        milliseconds = round((time.monotonic() - begun) * 1e3, 3)
        event = Event(time.time(), self._node, operation, owner, key_id, done.items, done.found, status, milliseconds)
        os.write(self._events, _encode(event) + b"\n")
        return Response(done.body, status, media_type="application/json")

    async def _carry_out(self, key: ApiKey | None, operation: Permission, body: bytes) -> Done:
        if key is None:
            raise Refusal(401)
        if operation not in key.allow:
            raise Refusal(403)
        account = self._accounts[key.owner]
        return await (self._vault.tokenize(account, body) if operation == "tokenize" else self._vault.detokenize(account, body))


def application(directory: Path, node: str, events: Path) -> Starlette:
    """Returns the application. libpq's environment variables name the PostgreSQL."""
    app = Starlette()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        settings = {"autocommit": True}
        async with AsyncConnectionPool("", min_size=_CONNECTIONS, max_size=_CONNECTIONS, kwargs=settings, open=False) as pool:
            await pool.wait()
            api = await Api.open(pool, directory, node, events)
            app.router.routes += [
                Route("/tokenize", api.tokenize, methods=["POST"]),
                Route("/detokenize", api.detokenize, methods=["POST"]),
            ]
            expect_batches()
            yield

    app.router.lifespan_context = lifespan
    return app


def main() -> None:
    directory, node, port, events = sys.argv[1:]
    app = application(Path(directory), node, Path(events))
    config = uvicorn.Config(app, HOST, int(port), loop="uvloop", http="httptools", access_log=False, log_level="warning")
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
