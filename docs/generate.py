"""Writes the pages that are made from code: docs/api.md from the OpenAPI document, docs/cli.md from the commands' own help.

bin/docs runs it; a test fails when a page is not what it would write.
"""

import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from quorumvault.cli import main as command_line
from quorumvault.server.http.openapi import document

DOCS = Path(__file__).parent
_COLUMNS = 100
_NOTE = "<!-- Made by bin/docs. Change the code that it is made from. -->"

JSONObject = dict[str, Any]


def pages() -> dict[Path, str]:
    """Path to text, of every page that is made from code."""
    return {DOCS / "api.md": api_page(document()), DOCS / "cli.md": cli_page(command_line)}


# The HTTP API


def api_page(api: JSONObject) -> str:
    parts = [
        f"# The HTTP API\n\n{_NOTE}\n",
        api["info"]["description"],
        "`GET /openapi.json` serves all this as an OpenAPI 3.1 document. It needs no key.\n",
        _overview(api),
        _headers(api),
        *(_operation(api, method, path, operation) for path, item in api["paths"].items() for method, operation in item.items()),
        _errors(api),
        "## Types\n",
        *(_type(name, schema) for name, schema in sorted(api["components"]["schemas"].items())),
    ]
    return "\n\n".join(map(_filled, "\n".join(parts).split("\n\n")))


def _filled(block: str) -> str:
    """A paragraph in lines of _COLUMNS; headings, tables and code as they are."""
    if block.lstrip("\n").startswith(("#", "|", "<", "```")):
        return block
    return textwrap.fill(block, _COLUMNS, break_long_words=False, break_on_hyphens=False)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |\n" for line in lines)


def _overview(api: JSONObject) -> str:
    rows = [
        [f"[`{method.upper()} {path}`](#{method}-{path.strip('/').replace('.', '')})", operation["summary"], _key(operation)]
        for path, item in api["paths"].items()
        for method, operation in item.items()
    ]
    return _table(["request", "", "key"], rows)


def _key(operation: JSONObject) -> str:
    if not operation["security"]:
        return "none"
    (roles,) = operation["security"][0].values()
    return f"allowed to {roles[0]}" if roles else "any"


def _headers(api: JSONObject) -> str:
    components = api["components"]
    sent = [["`Authorization: Bearer <api key>`", components["securitySchemes"]["bearer"]["description"]]]
    sent += [["`X-API-Key: <api key>`", components["securitySchemes"]["apiKey"]["description"]]]
    sent += [
        [f"`{name}`", f"{header['description']} {_type_words(header['schema'])}"]
        for name, header in components["parameters"].items()
    ]
    received = [[f"`{name}`", header.get("description", "")] for name, header in components["headers"].items()]
    return f"## Headers\n\n{_table(['in requests', ''], sent)}\n{_table(['in answers', ''], received)}"


def _operation(api: JSONObject, method: str, path: str, operation: JSONObject) -> str:
    parts = [f"## {method.upper()} {path}\n", f"{operation['summary']}. {operation['description']}\n"]
    body = operation.get("requestBody", {"content": {}})["content"]
    answer = operation["responses"]["200"]["content"]
    for what, contents in (("Body", body), ("Answer", answer)):
        parts += [f"{what}, `{kind}`: {_type_words(content['schema'])}\n" for kind, content in contents.items()]
    asked: JSONObject = next(iter(body.values()))["examples"] if body else {}
    for name, example in next(iter(answer.values())).get("examples", {}).items():
        parts.append(_example(asked[name]["value"] if name in asked else None, example["value"]))
    return "\n".join([*parts, _failures(api, operation)])


def _example(request: object, answer: object) -> str:
    sides = [
        side if isinstance(side, str) else json.dumps(side, ensure_ascii=False) for side in (request, answer) if side is not None
    ]
    texts = [f"{arrow} {text.rstrip()}" for arrow, text in zip(("→", "←")[-len(sides) :], sides, strict=True)]
    return "```\n" + "\n".join(texts) + "\n```\n"


def _failures(api: JSONObject, operation: JSONObject) -> str:
    failed = {status: answer for status, answer in operation["responses"].items() if status not in ("200", "default")}
    rows = [[status, _resolve(api, answer)["description"]] for status, answer in failed.items()]
    return _table(["status", "when"], rows)


def _resolve(api: JSONObject, part: JSONObject) -> JSONObject:
    found = part
    for name in part.get("$ref", "").split("/")[1:]:
        found = api[name] if found is part else found[name]
    return found


def _errors(api: JSONObject) -> str:
    problems = [example["value"] for example in api["components"]["examples"].values()]
    rows = [
        [str(problem["status"]), f"`{problem['code']}`", problem["title"], "yes" if problem["retryable"] else "no"]
        for problem in problems
    ]
    shown = json.dumps(next(problem for problem in problems if "errors" in problem), ensure_ascii=False, indent=2)
    table = _table(["status", "code", "title", "a retry can help"], rows)
    what = "The body of an error is a [Problem](#problem), of type `application/problem+json`."
    return f"## Errors\n\n{what}\n\n{table}\n```\n{shown}\n```\n"


def _type(name: str, schema: JSONObject) -> str:
    """A struct's members. If ``schema`` is a request's, it may say that exactly one of some members is present."""
    needed = set(schema.get("required", ()))
    rows = [
        [f"`{member}`", _type_words(kind), "yes" if member in needed else ""] for member, kind in schema["properties"].items()
    ]
    one_of = [f"`{member}`" for choice in schema.get("oneOf", ()) for member in choice["required"]]
    note = f"Exactly one of {', '.join(one_of)}.\n\n" if one_of else ""
    return f"### {name}\n\n{schema['description']}\n\n{note}{_table(['member', '', 'always present'], rows)}"


def _type_words(schema: JSONObject) -> str:
    """A schema in words, with its description if it has one: "list of (string, or null)"."""
    words = _kind(schema)
    return ". ".join(part for part in (words, schema.get("description")) if part)


def _kind(schema: JSONObject) -> str:
    match schema:
        case {"$ref": reference}:
            name = reference.rpartition("/")[2]
            return f"[{name}](#{name.lower()})"
        case {"anyOf": alternatives} | {"oneOf": alternatives}:
            return ", or ".join(map(_kind, alternatives))
        case {"enum": words}:
            return " ".join(f"`{word}`" for word in words)
        case {"pattern": pattern}:
            return f"`{pattern}`"
        case {"type": "array", "items": items}:
            return f"list of {_in_brackets(_kind(items))}"
        case {"type": "object", "additionalProperties": {} as members}:
            return f"object, each member {_in_brackets(_kind(members))}"
        case {"type": "integer", "minimum": least}:
            return f"integer from {least} on"
        case {"type": [*kinds]}:
            return ", or ".join(kinds)
        case {"type": kind}:
            return str(kind)
    return ""


def _in_brackets(words: str) -> str:
    return f"({words})" if ", or " in words else words


# The command line


def cli_page(root: click.Group) -> str:
    parts = [f"# The command line\n\n{_NOTE}\n"]
    for context in _contexts(root, None):
        help_text = context.command.get_help(context)
        parts.append(f"## {context.command_path}\n\n```\n{help_text}\n```\n")
    return "\n".join(parts)


def _contexts(command: click.Command, parent: click.Context | None) -> Iterator[click.Context]:
    """Yields the contexts of a command and of all below it, in the order in which they are listed."""
    context = click.Context(
        command, parent, command.name, terminal_width=_COLUMNS, max_content_width=_COLUMNS, **command.context_settings
    )
    yield context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from _contexts(below, context)


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text)
