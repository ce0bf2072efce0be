"""No request of one owner makes a node hold more than its budget, or keeps other owners out."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import pytest

from chaos.testbed.cluster import Cluster, wait_for
from tests.hostile.limited import LOUD, LOUD_TOO, PATIENCE, QUIET, ask, assert_unharmed, post, raw_connection, tokens_of
from tests.hostile.tenants import ARROW, JSON
from tests.rigs.clusters import metrics
from tests.rigs.columns import column

#: Each of these characters takes six bytes of JSON.
LARGE = "\x01" * 65_500


@pytest.mark.parametrize("media", [JSON, ARROW])
def test_a_value_that_is_asked_for_ten_thousand_times_is_too_large_an_answer(cluster: Cluster, media: str) -> None:
    (token,) = tokens_of(cluster, [LARGE])
    body = json.dumps({"tokens": [token] * 10_000}).encode() if media == JSON else column("token", [token] * 10_000)
    answer = ask(cluster, "/detokenize", body, media=media)
    assert (answer.status, answer.json()["code"]) == (413, "too-large")
    assert "ask for fewer" in answer.json()["detail"]
    assert_unharmed(cluster)


def test_a_value_that_an_answer_repeats_as_often_as_it_may_comes_back_whole(cluster: Cluster) -> None:
    (token,) = tokens_of(cluster, ["\x01" * 60_000])
    times = (64 << 20) // (6 * 60_000 + 40)
    answer = ask(cluster, "/detokenize", json.dumps({"tokens": [token] * times}).encode())
    assert answer.status == 200
    told = answer.json()
    assert (told["found"], {result["value"] for result in told["results"]}) == (times, {"\x01" * 60_000})
    record = {"contacts": [{"phone": token}] * times}
    answer = ask(cluster, "/detokenize", json.dumps({"records": [record]}).encode())
    assert answer.status in (200, 422)  # 422 where the field is not configured; the answer then has no values
    assert_unharmed(cluster)


def test_sixty_four_of_the_worst_requests_at_once_whose_answers_nobody_reads(cluster: Cluster) -> None:
    tokens: list[str] = []
    for first in range(0, 200, 40):
        tokens += tokens_of(cluster, [LARGE + f"{number:08}" for number in range(first, first + 40)])
    many = [tokens[number % len(tokens)] for number in range(10_000)]
    requests = [
        post(cluster, "/detokenize", json.dumps({"tokens": tokens}).encode()),
        post(cluster, "/detokenize", json.dumps({"tokens": many}).encode()),
        post(cluster, "/detokenize", column("token", tokens), media=ARROW),
        post(cluster, "/detokenize", column("token", many), media=ARROW),
    ]
    with ExitStack() as stack, ThreadPoolExecutor(64) as senders:
        for number in range(64):
            connection = stack.enter_context(raw_connection(cluster, receives=4096))
            senders.submit(connection.sendall, requests[number % len(requests)])
        for _ in range(20):  # other owners are served in the meantime
            (token,) = tokens_of(cluster, ["meanwhile"], QUIET)
            answer = ask(cluster, "/detokenize", json.dumps({"token": token}).encode(), QUIET)
            assert answer.status == 200
            assert metrics(cluster, "n1")["quorumvault_request_memory_bytes"] <= 320 << 20
    assert_unharmed(cluster)


BODIES = {
    "members": b'{"record":{' + b",".join(b'"a%d":1' % number for number in range(900_000)) + b"}}",
    "elements": b'{"record":{"contacts":[' + b"1," * 900_000 + b"1]}}",
    "contacts": b'{"record":{"contacts":[' + b",".join(b'{"phone":"%d"}' % number for number in range(99_000)) + b"]}}",
    "commas": b'{"values":["' + b"," * (16_000_000) + b'"]}',
    "blanks": b'{"values":[' + b" " * 16_000_000 + b"1]}",
    "digits": b'{"record":{"a":' + b"9" * 16_000_000 + b"}}",
    "depth": b'{"record":{"a":' + b"[" * 8_000_000,
}


def test_bodies_of_the_worst_shapes_at_once_leave_others_and_the_peers_their_turn(cluster: Cluster) -> None:
    bodies = [*BODIES.values()] * 3
    with ThreadPoolExecutor(len(bodies)) as senders:
        asked = [senders.submit(ask, cluster, "/tokenize", body) for body in bodies]
        while not all(each.done() for each in asked):
            (token,) = tokens_of(cluster, ["meanwhile"], QUIET)
            assert token.startswith("qv_1_")
    statuses = {each.result().status for each in asked}
    assert {200} <= statuses <= {200, 400, 413, 422, 429, 503}
    assert_unharmed(cluster)


def test_bodies_that_are_announced_and_never_come_keep_no_other_key_out(cluster: Cluster) -> None:
    head = post(cluster, "/tokenize", b"").replace(b"Content-Length: 0", b"Content-Length: 16777216")
    body = b'{"values":["' + b"x" * 60_000 + b'","' + b"y" * 60_000 + b'"]}'
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(raw_connection(cluster)).sendall(head)
        for _ in range(5):
            assert ask(cluster, "/tokenize", body, QUIET).status == 200
    assert_unharmed(cluster)


def refused(cluster: Cluster, key: str) -> bool:
    return ask(cluster, "/epoch", None, key).status == 429


def test_an_owner_whose_bodies_never_end_keeps_no_other_owner_out_with_two_keys(cluster: Cluster) -> None:
    """Each key sends as many requests as one owner may have. Together they would take more than all places."""
    with ExitStack() as stack:
        for key in (LOUD, LOUD_TOO):
            for _ in range(48):
                stack.enter_context(raw_connection(cluster)).sendall(post(cluster, "/tokenize", b'{"values":["x"]}', key)[:-1])
        for key in (LOUD, LOUD_TOO):
            assert wait_for(partial(refused, cluster, key), PATIENCE)
        assert metrics(cluster, "n1")["quorumvault_in_flight"] == 48
        for _ in range(5):
            assert ask(cluster, "/tokenize", b'{"values":["somebody else"]}', QUIET).status == 200
    assert_unharmed(cluster)


@pytest.mark.parametrize("name", ["'" * 1_000_000, "x" * 1_000_000], ids=["quotes", "letters"])
@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
def test_a_long_name_under_a_wildcard_is_not_told_back_for_each_place(cluster: Cluster, path: str, name: str) -> None:
    items = {"tokenize": 1.5, "detokenize": "no token"}
    record = {"contacts": {f"{name}{number}": {"phone": items[path[1:]], "email": items[path[1:]]} for number in range(10)}}
    body = json.dumps({"records": [record]}).encode()
    answer = ask(cluster, path, body)
    assert answer.status == (422 if path == "/tokenize" else 200)
    assert len(answer.body) < len(body) + 20_000
    assert_unharmed(cluster)
