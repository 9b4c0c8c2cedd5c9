"""Whether the C of a sensor fills the fields by which its rules are decided in the kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..events.event import EventType
from ..events.inline import shape_of
from ..events.layout import Field
from ..plugin.probe import Sensor

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)


def unfilled(sensor: Sensor) -> Iterator[str]:
    """A line for each inline field that no source sets in any `struct <event>_inline`, with what to do about it.

    It is read from the text: `known.field =`, `known->field |=`, `.field =` where such a variable is declared, and what
    others are given to fill. Reading a field does not fill it.
    """
    sources = [(each.name, _COMMENT.sub(" ", each.read_text(encoding="utf-8"))) for each in sensor.sources]
    for event in map(EventType, sensor.events):
        struct = f"{event.name.replace('.', '_')}_inline"
        using = [(name, text) for name, text in sources if re.search(rf"\b{struct}\b", text)]
        for field in (each for each in event.own_fields if each.inline):
            if not any(_filled(text, struct, field) for _, text in using):
                where = ", ".join(name for name, _ in using) or "no source, which never declares it"
                fix = f"set it in struct {struct} ({where}), or take Inline from the field"
                yield f"{event.event.__name__}.{field.name}: marked Inline, and never filled by the C; {fix}"


def _filled(text: str, struct: str, field: Field) -> bool:
    declared = re.findall(rf"\b{struct}\s*\*?\s*(\w+)(\s*=\s*\{{[^}}]*\}})?", text)
    return any(
        re.search(rf"\.{field.name}\s*=(?!=)", initial)
        or re.search(_sets(rf"\b{name}(?:\.|->){field.name}\b", field), text)
        for name, initial in declared
    )


def _sets(it: str, field: Field) -> str:
    """Where this is assigned to, or passed on to be filled: its address or, of text, itself, but not to sizeof."""
    ways = [rf"{it}(?:\s*\[[^]]*\])?\s*(?:(?:<<|>>|[-+*/%&|^])?=(?!=)|\+\+|--)", rf"(?:[(,=]|\*\s*\))\s*&\s*{it}"]
    if shape_of(field.wire) == "text":
        ways.append(rf"(?:(?<!sizeof)\(|,)\s*{it}\s*[,)]")
    return "|".join(ways)
