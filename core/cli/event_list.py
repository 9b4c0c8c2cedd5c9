"""What `krie events` lists: the events of the core and of the configured plugins."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..config import Config, load_config
from ..errors import ConfigError
from ..events.event import EventType
from ..events.wire import Json
from ..plugin.manager import Plugins
from ..plugin.offline import event_types, load_plugins
from ..processes.enrich import PROCESS_SCHEMA, document_schema
from .render import console, table

_NEAREST = 3


def schemas(path: Path | None, kind: str = "") -> dict[str, Json]:
    """JSON Schemas of what policies see, with the configuration at `path`; `kind` as in `show`. Raises `KrieError`."""
    loaded = _load(path)
    events: dict[str, Json] = {
        each.name: document_schema(each, loaded.facts(each.name)) for each in _wanted(loaded, kind)
    }
    return {"event": events, "process": PROCESS_SCHEMA}


def show(path: Path | None, kind: str = "") -> None:
    """Print one table an event: all events, those of one plugin, or one of them. Raises `KrieError`."""
    loaded = _load(path)
    for each in _wanted(loaded, kind):
        rows = [(field.name, _type_of(field.wire.schema()), field.doc) for field in each.own_fields]
        rows += [(name, "process", "what is known of it") for name in each.event.PROCESSES]
        rows += [(name, "fact", _description(fact)) for name, fact in loaded.facts(each.name).items()]
        title = f"{each.name} ({each.kind:#06x}): {(each.event.__doc__ or '').strip().splitlines()[0]}"
        console().print(table(title, ("field", "type", "meaning"), rows, apart=True))


def _load(path: Path | None) -> Plugins:
    return load_plugins(load_config(path) if path is not None else Config(), str(path))[0]


def _wanted(loaded: Plugins, kind: str) -> list[EventType]:
    """Raises `ConfigError` for a kind that no configured plugin has."""
    known = list(event_types(loaded))
    wanted = [each for each in known if kind in ("", each.name, each.name.partition(".")[0])]
    if not wanted:
        near = nearest(kind, [each.name for each in known])
        hint = f"did you mean {' or '.join(near)}?" if near else "the plugin that has it must be in the configuration"
        raise ConfigError(f"events {kind}", f"no such event; {hint}")
    return wanted


def nearest(kind: str, names: Iterable[str]) -> list[str]:
    """What somebody may have meant: one kind like this, or plugins and kinds of which a part is."""
    if "." in kind:
        return difflib.get_close_matches(kind, list(names), 1)
    by_word: dict[str, list[str]] = {}
    for name in names:
        plugin, _, event = name.partition(".")
        by_word.setdefault(plugin, [plugin])
        by_word.setdefault(event, []).append(name)
    words = [each for each in by_word if kind in each.split("_")] or difflib.get_close_matches(kind, by_word, _NEAREST)
    return [each for word in words for each in by_word[word]][:_NEAREST]


def _type_of(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        names = schema["enum"]
        return " | ".join(names) if len(names) <= 8 else f"one of {len(names)} names"
    if schema.get("type") == "array":
        return f"list of {_type_of(schema['items'])}"
    return "hexadecimal text" if "pattern" in schema else str(schema["type"])


def _description(fact: Any) -> str:
    return str(fact.get("description", "")) if isinstance(fact, Mapping) else ""
