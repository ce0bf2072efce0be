"""Owners of one cluster, as many as a rig wants. Each remembers which value every token that it was given stands for.

Each owner is one client, which tries random nodes until one answers. Every answer has to agree with all earlier ones, both while
nodes are killed and frozen and afterwards.
"""

import hashlib
import http.client
import json
import random
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import yaml

from chaos.testbed.cluster import NODES, Cluster, wait_for
from chaos.testbed.spelling import Speller
from tests.rigs.columns import column

Value = str | int | bool

JSON, ARROW = "application/json", "application/vnd.apache.arrow.stream"
#: Longer than a node needs to answer, and short compared with a test, because frozen nodes are asked too.
_TIMEOUT = 2.0
_PATIENCE = 60.0
#: The headers that may differ between two otherwise equal answers.
_OWN_HEADERS = {"date", "x-request-id"}


class Reply(NamedTuple):
    """An answer as received. ``headers`` are in their order, without date and request id."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def exchange(
    address: str, key: str, path: str, body: bytes | None, kind: str = JSON, *, request: str = "same", timeout: float = _TIMEOUT
) -> Reply | None:
    """Sends one request with this request id. Returns None if no answer arrives."""
    connection = http.client.HTTPConnection(address, timeout=timeout)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": kind, "X-Request-ID": request}
    try:
        connection.request("POST" if body else "GET", path, body or None, headers)
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    assert response.getheader("X-Request-ID") == request
    kept = [(name.lower(), value) for name, value in response.getheaders() if name.lower() not in _OWN_HEADERS]
    return Reply(response.status, tuple(kept), content)


def cluster_for(directory: Path, owners: Sequence[str], chance: random.Random) -> Cluster:
    """A cluster that is not started yet. Each owner has one key, with the permissions of the keys that ``init`` makes.

    All keys are written to the file at once, because the command that adds a key checks every key that is already there.
    """
    made = Cluster.create(directory, ("first",))
    file = directory / "api_keys.yaml"
    content = yaml.safe_load(file.read_text())
    (first,) = content["keys"]
    keys = {owner: f"qvk_{_letters(chance, 8)}_{_letters(chance, 32)}" for owner in owners}
    content["owners"] = list(owners)
    content["keys"] = [
        {**first, "id": key.split("_")[1], "owner": owner, "sha256": hashlib.sha256(key.encode()).hexdigest()}
        for owner, key in keys.items()
    ]
    file.write_text(json.dumps(content))  # JSON is YAML without anchors
    return Cluster(directory, {name: node.address for name, node in made.nodes.items()}, keys)


def _letters(chance: random.Random, count: int) -> str:
    return "".join(chance.choices(string.ascii_lowercase, k=count))


@dataclass
class Tenant:
    """One owner. ``tokens``: the value that each token stands for. ``given``: the token of each value, by epoch."""

    name: str
    cluster: Cluster
    chance: random.Random
    values: Sequence[Value]
    rotations: int
    epoch: int = 1
    tokens: dict[str, Value] = field(default_factory=dict)
    given: dict[tuple[int, type, Value], str] = field(default_factory=dict)
    asked: int = 0

    def ask(self, path: str, body: object, kind: str = JSON, avoid: Iterable[str] = ()) -> Reply:
        """The first answer other than "busy" or "no quorum", from random nodes, which are rarely those in ``avoid``."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        replies: list[Reply] = []

        def answered() -> bool:
            node = self.chance.choice(NODES)
            if node in avoid and self.chance.random() < 0.9:
                return False
            self.asked += 1
            address, key = self.cluster.nodes[node].address, self.cluster.api_key(self.name)
            reply = exchange(address, key, path, content, kind, request=f"{self.name}/{self.asked}")
            if reply is None or reply.status in (429, 503):
                return False
            replies.append(reply)
            return True

        assert wait_for(answered, _PATIENCE), f"{path} of {self.name} was not answered"
        (reply,) = replies
        assert reply.status == 200, reply
        return reply

    def ask_node(self, node: str, path: str, body: object = b"", kind: str = JSON, *, status: int = 200) -> Reply:
        """The answer of this node, once no fault is left on it."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        address, key = self.cluster.nodes[node].address, self.cluster.api_key(self.name)
        reply = exchange(address, key, path, content, kind, timeout=_PATIENCE)
        assert reply is not None, f"{path} of {self.name} was not answered"
        assert reply.status == status, reply
        return reply

    def learn(self, epoch: int, values: Sequence[Value], tokens: Sequence[str]) -> None:
        """Records an answer to a tokenize request, which has to agree with all earlier answers."""
        assert epoch == self.epoch
        for value, token in zip(values, tokens, strict=True):
            assert token.startswith(f"qv_{epoch}_")
            assert self.given.setdefault((epoch, type(value), value), token) == token
            known = self.tokens.setdefault(token, value)
            assert (type(known), known) == (type(value), value)

    # What clients do. ``avoid``: nodes that are known not to answer.

    def tokenize(self, avoid: Iterable[str] = ()) -> None:
        answer = self.ask("/tokenize", {"values": self.values}, avoid=avoid).json()
        self.learn(answer["epoch"], self.values, answer["tokens"])

    def tokenize_records(self, avoid: Iterable[str] = ()) -> None:
        sent = [{"ssn": value, "plain": number} for number, value in enumerate(self.values)]
        answer = self.ask("/tokenize", {"records": sent}, avoid=avoid).json()
        assert [record["plain"] for record in answer["records"]] == list(range(len(sent)))
        self.learn(answer["epoch"], self.values, [record["ssn"] for record in answer["records"]])

    def tokenize_arrow(self, avoid: Iterable[str] = ()) -> None:
        texts = [value for value in self.values if isinstance(value, str)]
        reply = self.ask("/tokenize", column("value", texts), ARROW, avoid)
        (tokens,) = columns(reply, "token")
        self.learn(epoch_of(reply), texts, tokens)

    def rotate(self, avoid: Iterable[str] = ()) -> None:
        """Rotates, retrying until a node answers. Repeating the request changes nothing."""
        assert self.ask("/rotate-epoch", {"from_epoch": self.epoch}, avoid=avoid).json() == {"active_epoch": self.epoch + 1}
        self.epoch += 1

    def retokenize(self, foreign: Sequence[str], avoid: Iterable[str] = ()) -> None:
        """Moves all of its own tokens to the active epoch, in a request with others' tokens."""
        asked = self.mixed(foreign)
        answer = self.ask("/retokenize", {"tokens": asked}, avoid=avoid).json()
        self.learn_moved(asked, answer["epoch"], [result.get("token") for result in answer["results"]])
        assert [result["status"] for result in answer["results"]] == self.statuses(asked)

    def learn_moved(self, asked: Sequence[str], epoch: int, tokens: Sequence[str | None]) -> None:
        moved = [(self.tokens[old], new) for old, new in zip(asked, tokens, strict=True) if old in self.tokens]
        assert [new for old, new in zip(asked, tokens, strict=True) if old not in self.tokens] == [None] * (
            len(asked) - len(moved)
        )
        self.learn(epoch, [value for value, _ in moved], [str(new) for _, new in moved])

    def detokenize(self, foreign: Sequence[str], avoid: Iterable[str] = ()) -> None:
        asked = self.mixed(foreign)
        self.require_values(asked, self.ask("/detokenize", {"tokens": asked}, avoid=avoid).json())

    # What the answers have to be.

    def mixed(self, foreign: Sequence[str]) -> list[str]:
        """Its own tokens of every epoch and ``foreign``, in random order."""
        assert not self.tokens.keys() & set(foreign)
        asked = [*self.tokens, *foreign]
        self.chance.shuffle(asked)
        return asked

    def statuses(self, asked: Iterable[str]) -> list[str]:
        return ["ok" if token in self.tokens else "not_found" for token in asked]

    def require_values(self, asked: Sequence[str], answer: Mapping[str, Any]) -> None:
        """Exactly its own values, with their types, for its own tokens; "not found" for any other."""
        results = answer["results"]
        expected = [
            {"status": "ok", "value": self.tokens[token]} if token in self.tokens else {"status": "not_found"} for token in asked
        ]
        assert results == expected
        types = [type(self.tokens[token]) for token in asked if token in self.tokens]
        assert [type(result["value"]) for result in results if "value" in result] == types  # since 1 == True
        assert (answer["found"], answer["not_found"]) == (len(types), len(asked) - len(types))

    def require_values_arrow(self, asked: Sequence[str], reply: Reply) -> None:
        values, statuses = columns(reply, "value", "status")
        texts = [self.tokens.get(token) for token in asked]
        assert values == [text if isinstance(text, str) else None for text in texts]
        words = {str: "ok", type(None): "not_found"}
        assert statuses == [words.get(type(text), "not_text") for text in texts]

    def require_records(self, asked: Sequence[str], answer: Mapping[str, Any]) -> None:
        assert [(type(record["ssn"]), record["ssn"]) for record in answer["records"]] == [
            (type(value), value) for value in (self.tokens.get(token, token) for token in asked)
        ]
        absent = [index for index, token in enumerate(asked) if token not in self.tokens]
        assert answer["missing"] == [{"index": index, "path": "$.ssn"} for index in absent]
        assert (answer["found"], answer["not_found"]) == (len(asked) - len(absent), len(absent))


class Ghosts:
    """Tokens that nobody was given. Each method has another reason why they are not found, for any owner."""

    def __init__(self, chance: random.Random) -> None:
        self._speller = Speller(chance.randbytes(32))
        self._made = 0

    def never_issued(self) -> str:
        return self._spelled(1)

    def unknown_epoch(self) -> str:
        return self._spelled(9)

    def malformed(self) -> str:
        """As long as the others, but with the check part of another token."""
        one, other = self._spelled(1), self._spelled(1)
        return one[:-8] + other[-8:]

    def _spelled(self, epoch: int) -> str:
        self._made += 1
        return self._speller.token("nobody", epoch, self._made)


def columns(reply: Reply, *names: str) -> list[list[Any]]:
    table = pa.ipc.open_stream(reply.body).read_all()
    return [table.column(name).to_pylist() for name in names]


def epoch_of(reply: Reply) -> int:
    return int(pa.ipc.open_stream(reply.body).schema.metadata[b"quorumvault.epoch"])
