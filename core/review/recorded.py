"""A line of the journal as the input that rules saw: exactly that, or what the line lacks of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..events.given import PARTS, Values
from ..events.wire import Json
from ..policy.engine import Package
from ..policy.mistakes import HEALTH_SCHEMA, HOST_SCHEMA
from ..policy.policy import least
from ..processes.enrich import PROCESS_SCHEMA
from .shape import Shape

_LABEL = 200


class Unreadable(Exception):
    """A line is not a journal's; `what` says why, and the text also where."""

    def __init__(self, what: str, where: str = "") -> None:
        self.what = what
        super().__init__(what + where)


class Recorded(NamedTuple):
    """One line of a journal, as far as a policy can decide it again."""

    kind: str
    document: dict[str, Any]
    """The input: without host, health and ancestors where those are not known."""
    decision: dict[str, Any]
    """What was decided then."""
    line: dict[str, Any]
    missing: tuple[str, ...]
    """`host` and parts of `krie.events.given.PARTS` that are not known."""
    old: bool
    """The line is of a KRIe that did not write these parts."""


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is too large for a number")
    return number


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key is there twice")
    return made


_decode = json.JSONDecoder(parse_float=_finite, parse_constant=_no_number, object_pairs_hook=_once).decode


def object_of(text: bytes) -> dict[str, Any]:
    """One line as an object. Raises `Unreadable`."""
    try:
        found = _decode(text.decode())
    except UnicodeDecodeError as error:
        raise Unreadable("not UTF-8", f" at byte {error.start + 1}") from error
    except json.JSONDecodeError as error:
        raise Unreadable(f"not valid JSON: {error.msg}", f" at character {error.pos + 1}") from error
    except RecursionError as error:
        raise Unreadable("nested too deep") from error
    except ValueError as error:  # also numbers of too many digits
        raise Unreadable("an invalid number, or a duplicate key", f": {str(error)[:_LABEL]}") from error
    if not isinstance(found, dict):
        raise Unreadable("not an object")
    return found


def _is_not_1(version: object) -> bool:
    return type(version) is not int or version != 1


def recorded(text: bytes, values: Values) -> Recorded:
    """Read one line; values that it tells are learnt. Raises `Unreadable`."""
    line = object_of(text)
    if _is_not_1(line.get("v")):
        raise Unreadable("no line of the journal's version 1")
    kind, event, process, decision = (line.get(name) for name in ("kind", "event", "process", "decision"))
    if not isinstance(kind, str) or not all(isinstance(each, dict) for each in (event, process, decision)):
        raise Unreadable("kind, event, process or decision is not there or has another type")
    assert isinstance(event, dict)
    assert isinstance(process, dict)
    assert isinstance(decision, dict)
    if "values" in line:
        values.learn(line["values"])
    given = line.get("given")
    old = not isinstance(given, dict)
    known: dict[str, Any] = {}
    if isinstance(given, dict):
        found = ((part, values.parsed(given.get(part))) for part in PARTS)
        known = {part: value for part, value in found if value is not None}
    if isinstance(line.get("host"), dict):
        known["host"] = line["host"]
    missing = tuple(part for part in ("host", *PARTS) if part not in known)
    if event.get("kind", kind) != kind:
        raise Unreadable("the event is of another kind than the line")
    document: dict[str, Any] = {"event": {"kind": kind, **event}, "process": process}
    if "ancestors" in known:
        document["process"] = {**process, "ancestors": known.pop("ancestors")}
    return Recorded(kind, document | known, decision, line, missing, old)


Schemas = Mapping[str, Json]
"""Of `input.event`, by kind: see `krie.review.input_schemas`."""


@dataclass(slots=True)
class Needs:
    """What policies read of events of each kind, so that a line that lacks something else is as good as a whole one."""

    packages: Iterable[Package]
    schemas: Schemas
    _by_kind: dict[str, Shape | None] = field(default_factory=dict)

    def lacks(self, kind: str, document: Mapping[str, Json]) -> tuple[str, ...]:
        """What rules read and a line's document does not say; ("kind",): nobody knows such events.

        Raises `Unreadable` where it says something that no event can be.
        """
        if kind not in self._by_kind:
            self._by_kind[kind] = self._needed(kind)
        shape = self._by_kind[kind]
        if shape is None:
            return ("kind",)
        lacking = []
        for where, what in shape.faults(document):
            if what:
                raise Unreadable(f"{'.'.join(where)[:_LABEL]} is not a value that such an event has: {what}")
            lacking.append("ancestors" if where == ("process", "ancestors") else ".".join(where))
        parts = [part for part in ("host", *PARTS) if part in lacking]
        return (*parts, *sorted(each for each in lacking if each not in parts))

    def _needed(self, kind: str) -> Shape | None:
        if kind not in self.schemas:
            return None
        concerned = (package for package in self.packages if package.concerns(kind))
        paths = least(path for package in concerned for path in package.reads(kind))
        return Shape(_input_schema(self.schemas[kind]), paths)


def _input_schema(event: Json) -> dict[str, Json]:
    parts: dict[str, Json] = {
        "event": event,
        "process": PROCESS_SCHEMA,
        "host": HOST_SCHEMA,
        "health": HEALTH_SCHEMA,
    }
    return {"type": "object", "properties": parts, "required": list(parts), "additionalProperties": False}


def label(value: object) -> str:
    """A name as reports group by it."""
    return value[:_LABEL] if isinstance(value, str) else "?"


def program_of(process: Mapping[str, Any]) -> str:
    """What people call the program of a process."""
    names = (process.get(name) for name in ("program", "exe", "comm"))
    return label(next((name for name in names if name not in ("", "?", None)), "?"))


def host_of(line: Recorded) -> str:
    """The name of the host that a line is of; `?` where it does not say."""
    host = line.document.get("host")
    return label(host.get("name") or "?") if isinstance(host, dict) else "?"


def day_of(line: Recorded) -> str:
    """The day of a line, in UTC; `?` where it does not say."""
    time = line.line.get("time")
    day = time[:10] if isinstance(time, str) else ""
    return day if len(day) == 10 and day[:4].isdigit() and day[4] == day[7] == "-" and day[:10].isascii() else "?"
