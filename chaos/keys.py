"""Uses and revokes API keys during the faults, beside the workload.

Each key is in the cluster's key file before the nodes start, and stays there unrevoked: a node learns of a revocation only from
the other nodes. Keys are used at a fixed rate through each node, and revoked at the admin socket of one node or another.
key_checker.py judges the answers.
"""

import asyncio
import base64
import hashlib
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import msgspec

from chaos.asking import DEADLINE, Told
from chaos.asking import REFUSED as UNREACHED
from chaos.recorder import Recorder
from chaos.testbed.history import READER, Action, Outcome
from chaos.testbed.key_checker import REFUSED, TAKEN

#: The number of keys, and the most of them to revoke: nodes must accept some until the end.
_KEYS, _REVOKED = 16, 12
#: Uses a second through each node, and seconds between two revocations.
_RATE, _PAUSE = 4.0, 3.0
_OWNER = "acme"
_ATTEMPTS, _AGAIN = 4, 1.0


def add_keys(file: Path, owner: str = _OWNER, count: int = _KEYS) -> dict[str, str]:
    """Writes new keys of this owner into a key file, all at once: a command for each would take long. Returns texts by id."""
    texts = [f"qvk_{_base32(5)}_{_base32(20)}" for _ in range(count)]
    ids = [text.split("_")[1] for text in texts]
    with file.open("a") as keys:
        for key_id, text in zip(ids, texts, strict=True):
            digest = hashlib.sha256(text.encode()).hexdigest()
            keys.write(f"- {{id: {key_id}, owner: {owner}, sha256: '{digest}', allow: [detokenize]}}\n")
    return dict(zip(ids, texts, strict=True))


def _base32(count: int) -> str:
    return base64.b32encode(secrets.token_bytes(count)).decode().lower()


class KeyTrial:
    """Uses and revokes keys. ``addresses``: the nodes' APIs; ``sockets``: their admin sockets; ``texts``: the keys by id."""

    def __init__(
        self, addresses: Mapping[str, str], sockets: Mapping[str, Path], texts: Mapping[str, str], recorder: Recorder, seed: int
    ) -> None:
        self._nodes = list(addresses)
        self._texts = dict(texts)
        self._recorder = recorder
        self._rng = Random(f"keys {seed}")
        self._left = list(texts)[:_REVOKED]
        timeout = httpx2.Timeout(DEADLINE)
        self._apis = {
            name: httpx2.AsyncClient(base_url=f"http://{address}", timeout=timeout, trust_env=False)
            for name, address in addresses.items()
        }
        self._admins = {
            name: httpx2.AsyncClient(
                base_url="http://localhost", timeout=timeout, transport=httpx2.AsyncHTTPTransport(uds=str(path))
            )
            for name, path in sockets.items()
        }

    async def close(self) -> None:
        for client in (*self._apis.values(), *self._admins.values()):
            await client.aclose()

    async def run(self, going_on: Callable[[], bool]) -> None:
        """Uses keys and revokes them while ``going_on()``, whether earlier requests were answered or not."""
        async with asyncio.TaskGroup() as tasks:
            for node in self._nodes:
                tasks.create_task(self._use_often(node, tasks, going_on))
            tasks.create_task(self._revoke_some(tasks, going_on))

    async def use_everything(self) -> None:
        """Uses each key through each node, once nothing is broken any more."""
        for node in self._nodes:
            for key_id in self._texts:
                for attempt in range(1, _ATTEMPTS + 1):
                    if await self._use(node, key_id, final=attempt == _ATTEMPTS) is Outcome.OK:
                        break
                    await asyncio.sleep(_AGAIN)

    async def _use_often(self, node: str, tasks: asyncio.TaskGroup, going_on: Callable[[], bool]) -> None:
        while going_on():
            await asyncio.sleep(self._rng.uniform(0.5, 1.5) / _RATE)
            tasks.create_task(self._use(node, self._rng.choice(list(self._texts))))

    async def _revoke_some(self, tasks: asyncio.TaskGroup, going_on: Callable[[], bool]) -> None:
        while going_on() and self._left:
            await asyncio.sleep(self._rng.uniform(0.5, 1.5) * _PAUSE)
            tasks.create_task(self._revoke(self._rng.choice(self._nodes), self._left.pop()))

    async def _use(self, node: str, key_id: str, *, final: bool = False) -> Outcome:
        """Sends a request that any key may make and that needs no quorum, so that the answer depends only on the key."""
        op = self._recorder.invoke(Action.USE_KEY, _OWNER, node, (key_id,), 0, client=READER if final else 0, final=final)
        headers = {"Authorization": f"Bearer {self._texts[key_id]}"}
        told = await _told(self._apis[node].get("/fields", headers=headers), _of_use)
        self._recorder.complete(op, *told)
        return told.outcome

    async def _revoke(self, node: str, key_id: str) -> None:
        op = self._recorder.invoke(Action.REVOKE_KEY, _OWNER, node, (key_id,), 0, client=0)
        told = await _told(self._admins[node].post(f"/revoke?key_id={key_id}"), _of_revocation)
        self._recorder.complete(op, *told)


async def _told(asking: Any, read: Callable[[httpx2.Response], Told]) -> Told:
    try:
        async with asyncio.timeout(DEADLINE):
            return read(await asking)
    except (httpx2.ConnectError, httpx2.ConnectTimeout):
        return Told(Outcome.FAIL, why=UNREACHED)
    except TimeoutError:
        return Told(Outcome.UNKNOWN, why="timeout")
    except httpx2.TransportError:
        return Told(Outcome.UNKNOWN, why="broken")


def _of_use(response: httpx2.Response) -> Told:
    answer = {200: TAKEN, 401: REFUSED}.get(response.status_code)
    if answer is None:
        return Told(Outcome.FAIL, why=str(response.status_code))
    return Told(Outcome.OK, (answer,))


def _of_revocation(response: httpx2.Response) -> Told:
    if response.status_code == 200:
        return Told(Outcome.OK)
    nothing_done = msgspec.json.decode(response.content).get("outcome") == "none"
    return Told(Outcome.FAIL if nothing_done else Outcome.UNKNOWN, why=str(response.status_code))
