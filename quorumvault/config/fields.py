"""fields.yaml: which members of a record are replaced. One key, ``fields``: a list of JSONPath expressions."""

from pathlib import Path

from quorumvault.errors import ConfigError
from quorumvault.formats.fields import FieldSet
from quorumvault.formats.yaml import load_yaml


def load_fields(path: Path) -> FieldSet:
    """Read fields.yaml. Raises ConfigError, also for an empty list.

    A vault without fields would return records unchanged, and report success.
    """
    content = load_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(path, "", "a mapping with the key `fields`")
    for key in content:
        if key != "fields":
            raise ConfigError(path, key, "is no key of this file; it has the one key `fields`")
    fields = content.get("fields")
    if not isinstance(fields, list) or not fields:
        raise ConfigError(path, "fields", "a list of one or more JSONPath expressions, such as - $.ssn")
    for position, expression in enumerate(fields):
        if not isinstance(expression, str):
            raise ConfigError(path, f"fields[{position}]", "a JSONPath expression as text, such as $.ssn")
    return FieldSet.compile(fields, path)
