"""Turns data read from YAML into frozen records. An unknown key or a bad value is a ConfigError: file, key, what was expected."""

import difflib
import typing
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Meta

from quorumvault.errors import ConfigError


def build(where: Path, key: str, data: object, kind: Any) -> Any:
    """``data`` as ``kind``: a Struct, a dict of them, or a type that msgspec converts to. Raises ConfigError naming the key.

    msgspec alone would say `$.nodes[...]` for every node, and would not suggest the intended key.
    """
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _build_struct(where, key, data, kind)
    if typing.get_origin(kind) is dict:
        of = typing.get_args(kind)[1]
        return {name: build(where, f"{key}.{name}", value, of) for name, value in _mapping(where, key, data).items()}
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(where, key, _expected(kind, error)) from None


def _build_struct(where: Path, key: str, data: object, kind: type[msgspec.Struct]) -> msgspec.Struct:
    mapping = _mapping(where, key, data)
    known = {info.name: info for info in msgspec.structs.fields(kind)}
    for name in mapping:
        if name not in known:
            raise ConfigError(where, _join(key, name), _unknown(name, list(known)))
    for name, info in known.items():
        if info.required and name not in mapping:
            raise ConfigError(where, _join(key, name), "is missing")
    return kind(**{name: build(where, _join(key, name), value, known[name].type) for name, value in mapping.items()})


def _mapping(where: Path, key: str, data: object) -> dict[str, object]:
    if not isinstance(data, dict) or not all(isinstance(name, str) for name in data):
        raise ConfigError(where, key, "expected a mapping of names to values")
    return data


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; expected one of {', '.join(known)}"


def _expected(kind: Any, error: msgspec.ValidationError) -> str:
    for meta in getattr(kind, "__metadata__", ()):
        if isinstance(meta, Meta) and meta.description:
            return f"expected {meta.description}"
    text = str(error).replace("`", "")
    return text[:1].lower() + text[1:]
