"""No error, event or log line contains anything of a request's content."""

import logging
from typing import Any

import pytest

from tests.rigs.vault import SMALL, Rig

SECRET = "Zc4secretQ7"
LIMITS = SMALL


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {SECRET: 1}),
        ("/tokenize", {"values": [{SECRET: SECRET}]}),
        ("/tokenize", {"values": [SECRET * 100]}),
        ("/tokenize", {"values": {SECRET: SECRET}}),
        ("/tokenize", {"values": [], "on_error": SECRET}),
        ("/tokenize", {"records": [SECRET]}),
        ("/tokenize", {"record": {"ssn": [SECRET]}}),
        ("/tokenize", {"record": {"ssn": {SECRET: 1}}}),
        ("/detokenize", {"token": SECRET}),
        ("/detokenize", {"token": {SECRET: 1}}),
        ("/detokenize", {"records": SECRET}),
        ("/rotate-epoch", {"from_epoch": SECRET}),
        ("/rotate-epoch", {"from_epoch": 1, SECRET: SECRET}),
        ("/tokenize", b'{"values": ["' + SECRET.encode()),
        ("/tokenize", b'{"values": [' + SECRET.encode()),
        ("/tokenize", SECRET.encode()),
        ("/tokenize", b'{"values": ["' + SECRET.encode() + b'\xff"]}'),
    ],
)
def test_no_error_repeats_what_was_sent(rig: Rig, path: str, body: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = rig.post(path, body, key="admin")
    assert 400 <= answer.status_code < 500
    assert SECRET not in answer.text + str(answer.headers) + caplog.text
    assert SECRET not in str(rig.events.written)


def test_no_error_repeats_a_key_or_a_path(rig: Rig) -> None:
    for answer in [
        rig.client.get(f"/detokenize/{SECRET}"),
        rig.client.get("/epoch", headers={"X-API-Key": SECRET}),
        rig.client.get("/epoch", headers={"X-Purpose": SECRET + " and more"}),
        rig.post("/tokenize", {}, {"Content-Type": SECRET}),
    ]:
        assert answer.status_code >= 400
        assert SECRET not in answer.text + str(answer.headers)
