"""GET /openapi.json agrees with the contract, and real answers agree with it."""

import copy
import functools
import json
from typing import Any, NamedTuple

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from starlette.routing import Route

from tests.rigs.vault import Rig

#: The contract's error table by path: the errors that each path may answer.
OF_ANY = "422 invalid"
OF_A_KEY = f"401 unauthenticated, {OF_ANY}, 429 busy, 429 rate-limited, 503 draining"
OF_A_BODY = f"{OF_A_KEY}, 400 malformed, 403 not-permitted, 413 too-large, 415 unsupported-media-type, 503 no-quorum"
CONTRACT = {
    ("POST", "/tokenize"): f"{OF_A_BODY}, 409 token-collision, 422 not-tokenizable, 422 already-tokenized, 422 too-many-items, "
    "422 value-too-large",
    ("POST", "/detokenize"): f"{OF_A_BODY}, 404 not-found, 409 token-collision, 422 too-many-items",
    ("POST", "/retokenize"): f"{OF_A_BODY}, 422 too-many-items",
    ("POST", "/tokens"): f"{OF_A_BODY}, 422 not-tokenizable, 422 already-tokenized, 422 too-many-items, 422 value-too-large",
    ("POST", "/rotate-epoch"): f"{OF_A_BODY}, 409 epoch-ahead",
    ("GET", "/epoch"): f"{OF_A_KEY}, 503 no-quorum",
    ("GET", "/fields"): OF_A_KEY,
    **{("GET", path): OF_ANY for path in ("/health", "/livez", "/readyz", "/limits", "/openapi.json", "/metrics")},
}
POSTS = ("/tokenize", "/detokenize", "/retokenize", "/tokens", "/rotate-epoch")
#: What every path answers to a method that it does not serve, and the answer of any other path.
EVERYWHERE = {(404, "not-found"), (405, "method-not-allowed")}
PERMISSION = dict(zip(POSTS, ("tokenize", "detokenize", "tokenize", "derive", "rotate"), strict=True))
NEED_A_KEY = {*PERMISSION, "/epoch", "/fields"}


class Row(NamedTuple):
    method: str
    path: str
    status: int
    code: str


def rows(method: str, path: str) -> set[Row]:
    return {Row(method, path, int(row.split()[0]), row.split()[1]) for row in CONTRACT[method, path].split(", ")}


@functools.cache
def served() -> dict[str, Any]:
    rig = Rig()
    answer = rig.client.get("/openapi.json", headers={"Authorization": ""})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert rig.client.get("/openapi.json").content == answer.content
    content: dict[str, Any] = answer.json()
    return content


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    """The target of a reference; any other part is returned as it is."""
    if set(part) != {"$ref"}:
        return part
    found: Any = served()
    for name in part["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return resolved(found)


def operation_of(method: str, path: str) -> dict[str, Any]:
    operation: dict[str, Any] = served()["paths"][path][method.lower()]
    return operation


# The document


def test_it_is_openapi() -> None:
    assert served()["openapi"].startswith("3.1.")
    validate(served())


def test_every_route_is_in_it_and_nothing_else() -> None:
    routes = [route for route in Rig().app.routes if isinstance(route, Route)]
    routed = {(method, route.path) for route in routes for method in (route.methods or set()) - {"HEAD"}}
    documented = {(method.upper(), path) for path, item in served()["paths"].items() for method in item}
    assert documented == routed == set(CONTRACT)


@pytest.mark.parametrize(("method", "path"), CONTRACT)
def test_its_errors_are_those_of_the_contract(method: str, path: str) -> None:
    documented = set()
    for status, response in operation_of(method, path)["responses"].items():
        content = resolved(response)["content"]
        if status == "default":
            codes = served()["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
            assert {code for _, code in EVERYWHERE} <= set(codes)
        elif "application/problem+json" in content:
            properties = content["application/problem+json"]["schema"]["properties"]
            assert properties["status"]["const"] == int(status)
            documented |= {Row(method, path, int(status), code) for code in properties["code"]["enum"]}
    # The contract has no row for a bug in the program, which may occur anywhere.
    assert documented == {*rows(method, path), Row(method, path, 500, "internal")}


@pytest.mark.parametrize(("method", "path"), CONTRACT)
def test_its_headers_and_keys_are_those_of_the_contract(method: str, path: str) -> None:
    operation = operation_of(method, path)
    sent = [resolved(parameter) for parameter in operation["parameters"]]
    assert {(parameter["in"], parameter["name"]) for parameter in sent} == {("header", "X-Request-ID"), ("header", "X-Purpose")}
    needed = [PERMISSION[path]] if path in PERMISSION else []
    assert operation["security"] == ([{"bearer": needed}, {"apiKey": needed}] if path in NEED_A_KEY else [])
    schemes = served()["components"]["securitySchemes"]
    assert (schemes["bearer"]["scheme"], schemes["apiKey"]["name"]) == ("bearer", "X-API-Key")
    for status, response in operation["responses"].items():
        headers = set(resolved(response)["headers"])
        problem = "application/problem+json" in resolved(response)["content"]
        assert "X-Request-ID" in headers
        assert ("Retry-After" in headers) == (status in {"429", "503"} and problem)
        assert ("WWW-Authenticate" in headers) == (status == "401")


def test_columns_are_taken_where_the_contract_says() -> None:
    arrow = "application/vnd.apache.arrow.stream"
    operations = {path: next(iter(item.values())) for path, item in served()["paths"].items()}
    taken = {path for path, each in operations.items() if arrow in each.get("requestBody", {}).get("content", {})}
    given = {path for path, each in operations.items() if arrow in each["responses"]["200"]["content"]}
    assert taken == given == {"/tokenize", "/detokenize", "/retokenize"}


def test_every_struct_has_words_and_every_operation_an_example() -> None:
    for schema in served()["components"]["schemas"].values():
        assert schema["description"]
    for path, item in served()["paths"].items():
        for operation in item.values():
            assert operation["summary"]
            assert operation["description"]
            content = next(iter(operation["responses"]["200"]["content"].values()))
            assert content.get("examples") or path == "/openapi.json"


# Answers, checked against the document


@functools.cache
def strict() -> dict[str, Any]:
    """The components, made to reject undocumented members."""
    components: dict[str, Any] = copy.deepcopy(served()["components"])
    for schema in components["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    return components


def check(schema: dict[str, Any], instance: Any) -> None:
    Draft202012Validator({**schema, "components": strict()}).validate(instance)


def conforms(method: str, path: str, answer: Any) -> None:
    """Asserts that the answer's type, headers and body are those that the document gives for its status."""
    responses = operation_of(method, path)["responses"]
    response = resolved(responses.get(str(answer.status_code), responses["default"]))
    media_type = answer.headers["content-type"].partition(";")[0]
    schema = response["content"][media_type]["schema"]
    check(schema, answer.json() if media_type.endswith("json") else answer.text)
    for name, header in response["headers"].items():
        header = resolved(header)
        assert name in answer.headers or not header.get("required")
        if name in answer.headers:
            value = answer.headers[name]
            check(header["schema"], int(value) if header["schema"].get("type") == "integer" else value)


GOOD = dict(zip(POSTS, ({"values": ["a"]}, {"token": "x"}, {"tokens": []}, {"values": ["a"]}, {"from_epoch": 1}), strict=True))


@pytest.mark.parametrize(("method", "path"), CONTRACT)
def test_what_any_path_may_answer(method: str, path: str) -> None:
    rig = Rig()
    rig.vault.failure = ZeroDivisionError()
    for answer in (
        rig.client.get(path + "/"),
        rig.client.delete(path),
        rig.post(path, GOOD[path], key="admin") if path in GOOD else rig.client.get(path),
    ):
        conforms(method, path, answer)


SUCCESSES: list[tuple[str, Any]] = [
    *((path, None) for method, path in CONTRACT if method == "GET"),
    ("/tokenize", {"record": {"ssn": "a", "name": {"family": None}, "x": 1.5}}),
    ("/tokenize", {"record": {"ssn": 1.5}, "on_error": "item"}),
    ("/tokenize", {"records": [{"ssn": 5}, {}]}),
    ("/tokenize", {"records": [{"ssn": 5}, {"ssn": []}, 7], "on_error": "item"}),
    ("/tokenize", {"values": ["a", 5, True, None]}),
    ("/tokenize", {"values": ["a", 1.5], "on_error": "item"}),
    ("/tokens", {"values": ["a", 5, True, None]}),
    ("/tokens", {"values": []}),
    ("/rotate-epoch", {"from_epoch": 1}),
]


@pytest.mark.parametrize(("path", "body"), SUCCESSES)
def test_successes_are_as_documented(path: str, body: Any) -> None:
    answer = Rig().client.get(path) if body is None else Rig().post(path, body, key="admin")
    assert answer.status_code == 200
    conforms("GET" if body is None else "POST", path, answer)


@pytest.mark.parametrize("path", ["/health", "/readyz"])
def test_a_node_that_cannot_serve_says_so_as_documented(path: str) -> None:
    rig = Rig()
    rig.admission.refuse_new()
    conforms("GET", path, rig.client.get(path))


#: Every status that one item of a batch can have. The words stand for tokens.
LOOKUPS: list[tuple[str, Any]] = [
    ("/detokenize", {"tokens": ["known", "unsure", "met", "no token", None]}),
    ("/detokenize", {"token": "known"}),
    ("/detokenize", {"records": [{"ssn": "known"}, {"ssn": "unsure"}, {"name": {"family": "met"}}, {"ssn": "no token"}]}),
    ("/retokenize", {"tokens": ["known", "unsure", "met", "no token", None]}),
]


@pytest.mark.parametrize(("path", "body"), LOOKUPS)
def test_results_are_as_documented(path: str, body: Any) -> None:
    rig = Rig()
    tokens = rig.tokens([5, True, "c"])
    rig.vault.unavailable, rig.vault.collided = {tokens[1]}, {tokens[2]}
    text = json.dumps(body)
    for word, token in zip(("known", "unsure", "met"), tokens, strict=True):
        text = text.replace(f'"{word}"', f'"{token}"')
    answer = rig.post(path, text.encode())
    assert answer.status_code == 200
    conforms("POST", path, answer)


# Its examples


def examples(content: dict[str, Any]) -> list[Any]:
    return [resolved(example)["value"] for example in content.get("examples", {}).values()]


@pytest.mark.parametrize(("method", "path"), CONTRACT)
def test_examples_are_of_the_form_that_is_documented(method: str, path: str) -> None:
    operation = operation_of(method, path)
    contents = [content for response in operation["responses"].values() for content in resolved(response)["content"].values()]
    if "requestBody" in operation:
        contents.append(operation["requestBody"]["content"]["application/json"])
        assert examples(contents[-1])
    for content in contents:
        for example in examples(content):
            check(content["schema"], example)


@pytest.mark.parametrize("path", PERMISSION)
def test_requests_of_examples_are_taken(path: str) -> None:
    for example in examples(operation_of("POST", path)["requestBody"]["content"]["application/json"]):
        assert Rig().post(path, example, key="admin").status_code in (200, 404)


def allows(path: str, body: Any) -> bool:
    """Whether the document allows this JSON as a body for this path."""
    schema = operation_of("POST", path)["requestBody"]["content"]["application/json"]["schema"]
    return bool(Draft202012Validator({**schema, "components": served()["components"]}).is_valid(body))


@pytest.mark.parametrize(
    ("number", "status"),
    [
        ("1", 200),
        *[(text, 409) for text in ("2", "4294967296", "18446744073709551616", "1" + "0" * 5000)],
        *[(text, 422) for text in ("0", "-1", "0.5", "1.5", "1e-1", "true", '"1"', "null", "[1]", "{}")],
        *[(text, 422) for text in ("1.0", "1e0")],  # JSON Schema cannot tell these from 1; the description covers them
    ],
)
def test_the_epoch_to_leave_is_what_the_document_says(number: str, status: int) -> None:
    body = f'{{"from_epoch": {number}}}'
    if number in ("1.0", "1e0"):
        assert number in served()["components"]["schemas"]["RotateBody"]["properties"]["from_epoch"]["description"]
    elif len(number) < 4300:  # Python parses no numbers with more digits
        assert allows("/rotate-epoch", json.loads(body)) is (status != 422)
    assert Rig().post("/rotate-epoch", body.encode(), key="admin").status_code == status
