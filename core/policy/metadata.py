"""What the METADATA comment above a rule says about it, for people.

Read by hand, since the agent has no YAML: the part of it that rules need, `key: text`, `key: |` with indented lines
below, and `custom`, either with indented keys below or as `{key: text, ...}`. A test holds it equal to what
`opa` reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_KEY = re.compile(r"(?P<indent> *)(?P<key>[a-z_]+):(?: +(?P<text>.*))?")


@dataclass(frozen=True, slots=True)
class Metadata:
    """Texts are empty where the rule does not have them."""

    title: str = ""
    description: str = ""
    """What happened, why it matters, and where the exceptions are."""
    severity: str = ""
    """`low`, `medium`, `high` or `critical`."""
    technique: str = ""
    """Id of the ATT&CK technique that it tells of."""
    seen: str = ""
    """What a user of the machine may notice of it, and by which ordinary work."""
    inline: bool = False
    """The rule demands that the kernel decides it (`enforce: inline`)."""


def metadata_above(lines: list[str], row: int) -> Metadata:
    """What the comment says that ends right above the line with index `row`."""
    start = row
    while start > 0 and lines[start - 1].startswith("#"):
        start -= 1
    block = lines[start:row]
    if "# METADATA" not in block:
        return Metadata()
    found = _values(line[2:] for line in block[block.index("# METADATA") + 1 :])
    return Metadata(
        **{name: found.get(name, "") for name in ("title", "description")},
        **{name: found.get(f"custom.{name}", "") for name in ("severity", "technique", "seen")},
        inline=found.get("custom.enforce") == "inline",
    )


def _values(lines: Iterable[str]) -> Mapping[str, str]:
    """Texts by key, those below `custom` as `custom.KEY`; lines of a text become one."""
    found: dict[str, str] = {}
    parent = key = ""
    deeper = 0
    for line in lines:
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        if key and indent >= deeper:
            found[key] = f"{found[key]} {line.strip()}".strip()
            continue
        match = _KEY.fullmatch(line.rstrip())
        if match is None:
            key = ""
            continue
        text, name = match["text"] or "", match["key"]
        parent = parent if indent else ""
        if name == "custom" and not indent:
            parent, key = "custom.", ""
            found.update({f"custom.{each}": value for each, value in _flow(text)})
            continue
        key, deeper = f"{parent}{name}", indent + 1
        found[key] = "" if text == "|" else _plain(text)
    return found


def _flow(text: str) -> Iterator[tuple[str, str]]:
    for part in text.strip("{} ").split(","):
        name, _, value = part.partition(":")
        if value:
            yield name.strip(), _plain(value)


def _plain(text: str) -> str:
    return text.strip().strip('"')
