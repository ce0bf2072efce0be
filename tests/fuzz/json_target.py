"""JSON bodies, in this process: the API over a vault in memory. It gives accepted values back; any other gets a problem."""

import asyncio
import json
from contextlib import ExitStack
from random import Random
from typing import Any

from quorumvault.server.http.openapi_reference import PROBLEMS
from tests.fuzz import jsonbodies
from tests.fuzz.canaries import VALUE, Planted
from tests.fuzz.target import InProcess, Violation
from tests.rigs.vault import CLINIC, Connection, Raw, Rig, bearer, key_text

_PROBLEMS = {(problem.status, problem.code) for problem in PROBLEMS}
_KEY = "admin"


class JsonBodies(InProcess):
    """An input is a path, a line end, and a body."""

    def open(self, stack: ExitStack) -> None:
        self._runner = stack.enter_context(asyncio.Runner())
        self._rig = Rig()
        tokens = self._rig.tokens([f"{VALUE} {number}" for number in range(4)])
        self._planted = Planted(key_text(_KEY), tokens)

    def make(self, rng: Random) -> bytes:
        path, body = jsonbodies.body(rng)
        return path.encode() + b"\n" + body

    def check_one(self, data: bytes) -> str:
        path, _, body = self._planted.filled(data).partition(b"\n")
        answer = self._asked(path.decode("latin-1"), body)
        self._rig.vault.asked.clear()
        self._rig.events.written.clear()
        self._rig.vault.__dict__["_epochs"].pop(CLINIC, None)  # else deriving takes long after many rotations
        if answer.status == 200:
            self._judge_success(path, body, _read(answer.body))
            return "200"
        return self._judge_problem(answer)

    def _asked(self, path: str, body: bytes) -> Raw:
        headers = {**bearer(_KEY), "content-type": "application/json"}
        return self._runner.run(Connection(self._rig.app, path, headers, body).run())

    def _judge_problem(self, answer: Raw) -> str:
        problem = answer.json()
        if (answer.status, problem.get("code")) not in _PROBLEMS or answer.status >= 500:
            raise Violation(f"status {answer.status}: {problem.get('code')}")
        if self._planted.found_in(answer.body + b"".join(value for _, value in answer.headers)):
            raise Violation(f"something planted is in a problem: {problem['code']}")
        return f"{answer.status} {problem['code']}"

    def _judge_success(self, path: bytes, body: bytes, answer: Any) -> None:
        """Checks that values come back unchanged from their tokens."""
        if path != b"/tokenize" or "tokens" not in answer:
            return
        values = _read(body)["values"]
        back = _read(self._asked("/detokenize", json.dumps({"tokens": answer["tokens"]}).encode()).body)
        found = [each.get("value") if each["status"] == "ok" else None for each in back["results"]]
        faulty = {int(error["index"][1]) for error in answer.get("errors", ())}
        asked = [None if index in faulty else value for index, value in enumerate(values)]
        if [(type(each), each) for each in found] != [(type(each), each) for each in asked]:
            raise Violation("values that came back are not those that were sent")


def _read(text: bytes) -> Any:
    """Reads integers as marked digits: Python makes no integers of too many digits, and 1 and "1" have to differ."""
    return json.loads(text, parse_int=lambda digits: ("integer", "0" if digits == "-0" else digits))
