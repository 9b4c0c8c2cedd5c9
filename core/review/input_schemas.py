"""JSON Schemas of `input`, for checkers and editors that know types: one for each kind of event, and one for each
package, of all kinds that its rules are about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..events.wire import Json
from ..plugin.manager import Plugins
from ..plugin.offline import event_types
from ..policy.engine import Package
from ..policy.mistakes import HEALTH_SCHEMA, HOST_SCHEMA
from ..processes.enrich import PROCESS_SCHEMA, document_schema

_DRAFT = "http://json-schema.org/draft-07/schema#"  # the newest that OPA understands


def event_schemas(loaded: Plugins) -> dict[str, Json]:
    """Of `input.event` by kind."""
    return {each.name: document_schema(each, loaded.facts(each.name)) for each in event_types(loaded)}


def input_schema(events: Iterable[Json]) -> dict[str, Json]:
    """Of `input` where its event is one of these."""
    found = [_typed(each) for each in events]
    return {
        "$schema": _DRAFT,
        "type": "object",
        "properties": {
            "event": found[0] if len(found) == 1 else {"anyOf": found},
            "process": _typed(PROCESS_SCHEMA),
            "host": _typed(HOST_SCHEMA),
            "health": _typed(HEALTH_SCHEMA),
        },
        "additionalProperties": False,
    }


def kinds_of(package: Package, known: Iterable[str]) -> list[str]:
    """The kinds of event that the rules of a package see: all `known` ones where that is not evident."""
    every = frozenset(known)
    return sorted(frozenset().union(*((rule.kinds & every) or every for rule in package.rules)) or every)


def file_of(kind: str) -> str:
    """Where the schema of a kind lies in a folder of schemas: annotations of rules call it `schema.PLUGIN.EVENT`."""
    return f"{kind.replace('.', '/')}.json"


def _typed(schema: Any) -> Any:
    """The same, in which each list of names says that they are text, which OPA's checker does not infer."""
    if isinstance(schema, list):
        return [_typed(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    names = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    text = {"type": "string"} if names and "type" not in schema and all(isinstance(each, str) for each in names) else {}
    return {**{key: value if key in ("enum", "const") else _typed(value) for key, value in schema.items()}, **text}
