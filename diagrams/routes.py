"""The paths that a node serves, from its applications, with the permission that each needs, from openapi_reference.py."""

from collections.abc import Iterable
from typing import cast
from unittest.mock import Mock

from starlette.routing import BaseRoute, Route

from quorumvault.server.http.admin.routes import Controls, create_admin_app
from quorumvault.server.http.openapi_reference import ENDPOINTS
from quorumvault.server.http.routes import create_app

_KEYS = {endpoint.path: endpoint.permission for endpoint in ENDPOINTS}
_WORDS = {None: "no key", "any": "any key"}


def draw() -> str:
    """D2 text of one container."""
    api = [f"    {_name(route)}: {_key(route)}" for route in _routes(create_app(Mock()).routes)]
    admin = [f"    {_name(route)}" for route in _routes(create_admin_app(Mock(spec=Controls), str).routes)]
    return "\n".join(
        (
            'routes: "What a node answers" {\n  grid-rows: 1',
            '  api: "HTTP, the API port" {\n    shape: sql_table',
            *api,
            "  }",
            '  admin: "HTTP, nX/admin.sock" {\n    shape: sql_table',
            *admin,
            "  }\n}\n",
        )
    )


def _routes(routes: Iterable[BaseRoute]) -> list[Route]:
    return [cast("Route", route) for route in routes]


def _name(route: Route) -> str:
    (method,) = (route.methods or set()) - {"HEAD"}
    return f'"{method} {route.path}"'


def _key(route: Route) -> str:
    permission = _KEYS[route.path]
    return f'"{_WORDS.get(permission, f"a key that may {permission}")}"'
