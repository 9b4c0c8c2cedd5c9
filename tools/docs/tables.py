"""The tables of events, probes, configuration and exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from krie.config import Config
from krie.enforce.enforcer import WORDS
from krie.errors import ExitCode
from krie.events.agent import AGENT_EVENTS
from krie.events.enforcement import ENFORCEMENT_EVENTS
from krie.events.event import EventType, own_fields
from krie.events.operations import ALL, NOT_GUARDED, OPERATIONS
from krie.plugin.manager import Plugins
from krie.plugin.probe import Probe, Sensor
from krie.processes.sensor import process_sensor
from pydantic import BaseModel

from .markdown import Row, codes, first_paragraph, table


def events(_: Config, plugins: Plugins) -> str:
    """What each event is about."""
    rows = [(f"`{each.name}`", f"`{each.kind:#06x}`", first_paragraph(each.event.__doc__)) for each in types(plugins)]
    return table(("event", "kind", "what happened"), rows)


def fields(_: Config, plugins: Plugins) -> str:
    """The fields of each event of a plugin, a table each."""
    tables = []
    for each in types(plugins):
        if each.event in (*AGENT_EVENTS, *ENFORCEMENT_EVENTS):
            continue
        rows = [(f"`{field.name}`", "yes" if field.inline else "", field.doc) for field in each.own_fields]
        rows += [(f"`{name}`", "", "the process: tgid, start time, executable ...") for name in each.event.PROCESSES]
        facts: dict[str, Any] = dict(plugins.facts(each.name))
        rows += [(f"`{name}`", "", str(fact.get("description", ""))) for name, fact in facts.items()]
        tables.append(f"`{each.name}`\n\n{table(('field', 'inline', 'meaning'), rows)}")
    return "\n".join(tables)


def probes(_: Config, plugins: Plugins) -> str:
    """Each probe with its alternatives, in order of preference."""
    rows: list[Row] = []
    for sensor in (process_sensor(), *_sensors(plugins)):  # those of containment are a sentence in the text
        for probe in sensor.probes:
            rows += _alternatives(sensor.name, probe)
    return table(("probe", "by", "attached to", "could enforce", "fields it does not fill", "limits"), rows)


def _alternatives(sensor: str, probe: Probe) -> Iterator[Row]:
    for each in probe.alternatives:
        filled = each.fields or (own_fields(probe.event) if probe.event is not None else frozenset())
        missing = own_fields(probe.event) - filled if probe.event is not None else frozenset()
        limits = ["**every system call is slower**"] if each.every_syscall else []
        yield (
            f"`{sensor}.{probe.name}`",
            each.name,
            ", ".join(f"`{program.target}`" for program in each.programs if program.target and not program.through),
            ", ".join(sorted(map(str, each.can))) or "-",
            codes(sorted(missing)) or "-",
            "; ".join([*limits, *([each.limits] if each.limits else [])]) or "-",
        )


def keys(config: Config, plugins: Plugins) -> str:
    """Each key of krie.toml with its default."""
    rows = [(f"`{key}`", f"`{default}`" if default else "", text) for key, default, text in every_key(config, plugins)]
    return table(("key", "default", "meaning"), rows)


def every_key(_: Config, plugins: Plugins) -> Iterator[tuple[str, str, str]]:
    """Each key of krie.toml, its default as TOML or nothing, and what it means."""
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys_of(name, field.annotation)
        elif name == "executables":
            yield "executables.<name>", "", field.description or ""
    for each in plugins.loaded:
        yield from _keys_of(f"plugins.{each.name}", type(each.config))


def _keys_of(section: str, model: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        if (nested := _values(field.annotation)) is not None:
            yield from _keys_of(f"{section}.{name}.<name>", nested)
            continue
        default = (
            ""
            if field.is_required()
            else str(field.default).lower()
            if isinstance(field.default, bool)
            else repr(field.default)
        )
        shown = "[]" if field.default == () else default.replace("'", '"')
        yield f"{section}.{name}", "" if field.is_required() else shown, field.description or ""


def _values(annotation: Any) -> type[BaseModel] | None:
    """The model of a table's values, where each key names a table of its own."""
    values = get_args(annotation)[1:] if get_origin(annotation) is dict else ()
    return values[0] if values and isinstance(values[0], type) and issubclass(values[0], BaseModel) else None


def exit_codes(_config: Config, _plugins: Plugins) -> str:
    """Each exit code."""
    return table(("code", "meaning"), [(str(each.value), each.meaning) for each in ExitCode])


def done(_config: Config, _plugins: Plugins) -> str:
    """The words of `done` in the journal."""
    return table(("`done`", "what happened"), [(f"`{word}`", meaning) for word, meaning in WORDS.items()])


def guarded(_config: Config, _plugins: Plugins) -> str:
    """The operations that are refused to a poisoned process."""
    return f"{', '.join(f'`{each}`' for each in OPERATIONS.values())}\n"


def operations(_config: Config, _plugins: Plugins) -> str:
    """What a poisoned process can no longer do, with the hooks that refuse it."""
    rows = [
        (", ".join(f"`{hook}`" for hook in (each.hook, *each.further)), each.refuses)
        for each in sorted(ALL, key=lambda each: each.number)
    ]
    return table(("hook", "refused to a poisoned process"), rows)


def unguarded(_config: Config, _plugins: Plugins) -> str:
    """The other hooks, by the reason why they are not guarded."""
    rows = [(why, ", ".join(f"`{each}`" for each in sorted(hooks))) for why, hooks in NOT_GUARDED.items()]
    return table(("why not", "hooks"), rows)


def types(plugins: Plugins) -> list[EventType]:
    """All event types, by their kinds."""
    events = [*AGENT_EVENTS, *ENFORCEMENT_EVENTS, *(event for sensor in _sensors(plugins) for event in sensor.events)]
    return sorted(map(EventType, events), key=lambda each: each.kind)


def _sensors(plugins: Plugins) -> list[Sensor]:
    return [each.sensor for each in plugins.loaded if each.sensor is not None]
