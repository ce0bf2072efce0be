"""GET /openapi.json: an OpenAPI 3.1 document, made from openapi_reference.py and the types that check requests (schemas.py).

components.schemas    the structs, as msgspec describes them
components.responses  problems by status: one for each set of codes that share a status somewhere, named "busy.rate-limited"
components.examples   one problem of each code
paths                 an operation for each endpoint; its "default" response covers 404 and 405, which every path can answer
"""

import inspect
from typing import Any

import msgspec

from quorumvault.errors import RequestError
from quorumvault.server.http.body import Form
from quorumvault.server.http.openapi_reference import ENDPOINTS, PROBLEMS, Endpoint
from quorumvault.server.http.problems import MEDIA_TYPE, Problem, problem_of
from quorumvault.server.http.request_ids import VISIBLE_ASCII

#: The version of the API, not of the program that serves it.
API_VERSION = "1"

JSONObject = dict[str, Any]

_DESCRIPTION = """\
Every node serves the same API, and any request can be sent to any node. The API key alone determines whose values and tokens a
request is about. An unknown name in a body is never ignored: the request is refused. A request with Content-Encoding is refused
too. A path with a trailing slash is another path. Every GET path also answers HEAD. Every failure is a problem (RFC 9457). Its
`code` is a fixed word, and its `retryable` says whether sending the same request again, later or to another node, can help. Every
operation can be repeated safely.
"""
_ID_HEADER_SCHEMA = {"type": "string", "pattern": f"^{VISIBLE_ASCII.pattern}$"}
_COMMON_PARAMETERS = ("X-Request-ID", "X-Purpose")
_ANY_PROBLEM = {"$ref": "#/components/responses/any"}


def document() -> JSONObject:
    """Return the whole document, ready to be encoded."""
    schemas = _schemas()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "QuorumVault",
            "version": API_VERSION,
            "summary": "A replicated token vault: it replaces values with tokens, and returns the values to authorized clients",
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": {endpoint.path: {endpoint.method.lower(): _operation(endpoint)} for endpoint in ENDPOINTS},
        "components": {
            "schemas": schemas,
            "responses": _responses(),
            "parameters": _parameters(),
            "headers": _headers(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "The API key."},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "Another way to send it."},
            },
            "examples": {error.code: {"summary": error.title, "value": _problem_example(error)} for error in PROBLEMS},
        },
    }


def _schemas() -> JSONObject:
    """Return the schemas of all structs that are sent or received. Requests that take one of several members get a ``oneOf``."""
    requests = [endpoint.request for endpoint in ENDPOINTS if endpoint.request is not None]
    answers = [answer for endpoint in ENDPOINTS for answer in (*endpoint.answers, endpoint.unavailable) if answer is not None]
    _, schemas = msgspec.json.schema_components([*requests, *answers, Problem], ref_template="#/components/schemas/{name}")
    for schema in schemas.values():
        schema["description"] = inspect.cleandoc(schema["description"])
    for request in requests:
        if request.one_of:
            schemas[request.__name__]["oneOf"] = [{"required": [name]} for name in request.one_of]
    return schemas


def _operation(endpoint: Endpoint) -> JSONObject:
    operation: JSONObject = {
        "operationId": endpoint.path.strip("/").replace("-", "_").partition(".")[0],
        "summary": endpoint.summary,
        "description": endpoint.description,
        "security": _security(endpoint),
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in _COMMON_PARAMETERS],
    }
    if endpoint.request is not None:
        sent = {example.name: {"value": example.request} for example in endpoint.examples}
        content: JSONObject = {Form.JSON.value: {"schema": _ref(endpoint.request), "examples": sent}}
        if endpoint.arrow is not None:
            content[Form.ARROW.value] = {"schema": {"description": endpoint.arrow.request}}
        operation["requestBody"] = {"required": True, "content": content}
    operation["responses"] = {"200": _success(endpoint), **_failures(endpoint), "default": _ANY_PROBLEM}
    return operation


def _security(endpoint: Endpoint) -> list[JSONObject]:
    if endpoint.permission is None:
        return []
    roles = [] if endpoint.permission == "any" else [endpoint.permission]
    return [{"bearer": roles}, {"apiKey": roles}]


def _success(endpoint: Endpoint) -> JSONObject:
    received = {example.name: {"value": example.answer} for example in endpoint.examples}
    content: JSONObject = {endpoint.media_type: {"schema": _answer_schema(endpoint)}}
    if received:
        content[endpoint.media_type]["examples"] = received
    if endpoint.arrow is not None:
        content[Form.ARROW.value] = {"schema": {"description": endpoint.arrow.answer}}
    return {"description": endpoint.summary, "headers": _header_refs("X-Request-ID"), "content": content}


def _answer_schema(endpoint: Endpoint) -> JSONObject:
    refs = [_ref(answer) for answer in endpoint.answers]
    if not refs:
        return {"type": "object" if endpoint.media_type == Form.JSON.value else "string"}
    return refs[0] if len(refs) == 1 else {"oneOf": refs}


def _ref(struct: type[msgspec.Struct]) -> JSONObject:
    return {"$ref": f"#/components/schemas/{struct.__name__}"}


def _failures(endpoint: Endpoint) -> JSONObject:
    """Return the problems of an endpoint by status, in order."""
    failures: JSONObject = {
        status: {"$ref": f"#/components/responses/{_name(kinds)}"} for status, kinds in _by_status(endpoint).items()
    }
    if endpoint.unavailable is not None:
        failures["503"] = {
            "description": "Not healthy, or not ready: the body says why",
            "headers": _header_refs("X-Request-ID"),
            "content": {endpoint.media_type: {"schema": _ref(endpoint.unavailable)}},
        }
    return dict(sorted(failures.items()))


def _by_status(endpoint: Endpoint) -> dict[str, list[type[RequestError]]]:
    by_status: dict[str, list[type[RequestError]]] = {}
    for kind in endpoint.errors:
        by_status.setdefault(str(kind.status), []).append(kind)
    return by_status


def _name(kinds: list[type[RequestError]]) -> str:
    return ".".join(kind.code for kind in kinds)


def _responses() -> JSONObject:
    groups = {_name(kinds): kinds for endpoint in ENDPOINTS for kinds in _by_status(endpoint).values()}
    responses = {name: _problem_response(kinds) for name, kinds in sorted(groups.items())}
    everything = {"$ref": "#/components/schemas/Problem"}
    responses["any"] = {
        "description": "Any problem: no such path (404 not-found), no such method on it (405 method-not-allowed), or another",
        "headers": _header_refs("X-Request-ID", "Allow"),
        "content": {MEDIA_TYPE: {"schema": everything, "examples": _example_refs([type(error) for error in PROBLEMS])}},
    }
    return responses


def _problem_response(kinds: list[type[RequestError]]) -> JSONObject:
    """Return the response for problems of one status. Its schema lists their codes."""
    names = ["X-Request-ID"]
    names += ["Retry-After"] if any(kind.status in (429, 503) for kind in kinds) else []
    names += ["WWW-Authenticate"] if kinds[0].status == 401 else []
    schema = {
        "$ref": "#/components/schemas/Problem",
        "properties": {"status": {"const": kinds[0].status}, "code": {"enum": [kind.code for kind in kinds]}},
    }
    return {
        "description": "; ".join(f"{kind.title} ({kind.code})" for kind in kinds),
        "headers": _header_refs(*names),
        "content": {MEDIA_TYPE: {"schema": schema, "examples": _example_refs(kinds)}},
    }


def _example_refs(kinds: list[type[RequestError]]) -> JSONObject:
    return {kind.code: {"$ref": f"#/components/examples/{kind.code}"} for kind in kinds}


def _problem_example(error: RequestError) -> JSONObject:
    example: JSONObject = msgspec.to_builtins(problem_of(error, "6f1de2e5a07c4f9c"))
    return example


def _header_refs(*names: str) -> JSONObject:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _parameters() -> JSONObject:
    words = (
        "The caller's id for this request. Without one, the node makes a fresh id. The event log records the id.",
        "Why the request is made. The event log records it beside the key's id.",
    )
    return {
        name: {"name": name, "in": "header", "required": False, "description": description, "schema": _ID_HEADER_SCHEMA}
        for name, description in zip(_COMMON_PARAMETERS, words, strict=True)
    }


def _headers() -> JSONObject:
    return {
        "X-Request-ID": {"description": "The caller's id, or a fresh one.", "required": True, "schema": _ID_HEADER_SCHEMA},
        "Retry-After": {
            "description": "With 429 and 503: the seconds to wait.",
            "required": True,
            "schema": {"type": "integer", "minimum": 0},
        },
        "WWW-Authenticate": {"description": "With 401.", "required": True, "schema": {"const": "Bearer"}},
        "Allow": {"description": "With 405: the methods that the path accepts.", "schema": {"type": "string"}},
    }
