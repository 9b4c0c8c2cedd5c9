"""The METADATA comment above a rule or package: YAML, as OPA reads it, but without aliases and without depth.

Read event by event rather than by a loader: nothing is built but text, every value keeps its place for messages, and
neither aliases (which grow exponentially) nor deep nesting can make a small comment costly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import yaml

from ..errors import PolicyError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C: a tenth of the time
_MOST_BYTES = 1 << 16
_MOST_DEPTH = 16
_RULE, _PACKAGE = ("rule", "document"), ("package", "subpackages")
"""Scopes; the first is that of a block that does not say its own."""
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True)
class Text:
    """A scalar, whatever its YAML type, and where it starts."""

    value: str
    place: str
    """FILE:LINE:COL"""


Value = Text | dict[str, "Value"] | list["Value"]


@dataclass(frozen=True, slots=True)
class Annotations:
    """What one comment says."""

    place: str = ""
    """FILE:LINE of its first line; empty where there is none."""
    values: Mapping[str, Value] = field(default_factory=dict)
    others: tuple[Annotations, ...] = ()
    """Comments above the same, of other scopes."""

    def text(self, *path: str) -> Text | None:
        """The scalar at a path of keys."""
        found: Value | Mapping[str, Value] = self.values
        for key in path:
            if not isinstance(found, dict) or key not in found:
                return None
            found = found[key]
        return found if isinstance(found, Text) else None


def annotations_above(lines: list[str], row: int, place: str, *, package: bool = False) -> Annotations:
    """The comment that belongs to the statement on the line with index `row`; `place`: the file.

    As for OPA: it starts at a line `# METADATA`, its lines start in one column, and blank lines and other comments may
    follow it. Of several, which must be of unlike scopes, that of the rule counts. Raises `PolicyError` for one that is
    not YAML, or not of the shape that OPA wants. `package`: the statement is one.
    """
    first = row
    while first > 0 and (not lines[first - 1].strip() or lines[first - 1].lstrip().startswith("#")):
        first -= 1
    starts = [number for number in range(first, row) if lines[number].lstrip().lstrip("# \t").startswith("METADATA")]
    if not starts:
        return Annotations()
    scopes = _PACKAGE if package else _RULE
    found: dict[str, Annotations] = {}
    for start, following in zip(starts, [*starts[1:], row], strict=True):
        column = len(lines[start]) - len(lines[start].lstrip())
        end = start + 1
        while end < following and lines[end][column : column + 1] == "#" and not lines[end][:column].strip():
            end += 1
        stripped = [line.rstrip()[column + 1 :] for line in lines[start + 1 : end]]
        block = _Block(place, start + 2, column + 2)
        read = Annotations(f"{place}:{start + 1}", block.read([each.removeprefix(" ") for each in stripped]))
        scope = _scope(read, scopes)
        if scope in found:
            raise PolicyError(
                f"{read.place}: METADATA: another block of scope {scope} is at {found[scope].place}; make one of both"
            )
        found[scope] = read
    own = next((found.pop(scope) for scope in scopes if scope in found), Annotations())
    return replace(own, others=tuple(found.values()))


def _scope(block: Annotations, scopes: tuple[str, ...]) -> str:
    """What a block is about: as it says, or else the first of these, which can be here."""
    said = block.values.get("scope", Text("", block.place))
    if not isinstance(said, Text):
        raise PolicyError(f"{block.place}: METADATA: scope must be text")
    if not said.value:
        entry_point = block.text("entrypoint")
        return "document" if entry_point is not None and entry_point.value == "true" else scopes[0]
    if said.value not in scopes:
        what = "cannot be here" if said.value in _RULE + _PACKAGE else "does not exist"
        raise PolicyError(f"{said.place}: METADATA: scope {said.value} {what}; write {' or '.join(scopes)}")
    return said.value


@dataclass(slots=True)
class _Block:
    """One comment while it is read; `line` and `column`: where its text starts in the file, from 1."""

    file: str
    line: int
    column: int

    def _at(self, mark: yaml.Mark | None) -> str:
        if mark is None:
            return f"{self.file}:{self.line - 1}"
        return f"{self.file}:{self.line + mark.line}:{self.column + 1 + mark.column}"

    def _refuse(self, mark: yaml.Mark | None, problem: str) -> PolicyError:
        return PolicyError(f"{self._at(mark)}: METADATA: {problem}")

    def read(self, lines: list[str]) -> dict[str, Value]:
        text = "\n".join(lines)
        if len(text) > _MOST_BYTES:
            raise self._refuse(None, f"is longer than {_MOST_BYTES >> 10} KiB")
        try:
            found = self._tree(text)
        except yaml.MarkedYAMLError as error:
            marks = [each for each in (error.problem_mark, error.context_mark) if each and each.line < len(lines)]
            mark = marks[0] if marks else None  # what goes on to the end is told where it starts
            raise self._refuse(mark, f"is not YAML: {error.problem or error.context}; quote the text") from None
        except yaml.YAMLError as error:  # a character that YAML does not have
            raise self._refuse(None, f"is not YAML: {str(error).splitlines()[0]}") from None
        if not isinstance(found, dict) or not found:
            raise self._refuse(None, "must be keys with values, such as `title: text`, right below `# METADATA`")
        for name in ("title", "description"):
            if name in found and not isinstance(found[name], Text):
                raise self._refuse(None, f"{name} must be text")
        if not isinstance(custom := found.get("custom", {}), dict) and not (
            isinstance(custom, Text) and not custom.value
        ):
            raise self._refuse(None, "custom must be keys with values, such as `custom: {severity: high}`")
        return found

    def _tree(self, text: str) -> Value | None:
        """Built without recursion: the stack holds the collections that are open, each with its pending key."""
        whole: Value | None = None
        stack: list[tuple[dict[str, Value] | list[Value], list[str]]] = []
        documents = 0
        for event in yaml.parse(text, Loader=_LOADER):
            made: Value
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._refuse(event.start_mark, "holds more than one YAML document")
                continue
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                raise self._refuse(
                    event.start_mark, "anchors and aliases of YAML are refused; quote a text with & or *"
                )
            if isinstance(event, yaml.ScalarEvent):
                made = Text(event.value, self._at(event.start_mark))
            elif isinstance(event, yaml.MappingStartEvent):
                made = {}
            elif isinstance(event, yaml.SequenceStartEvent):
                made = []
            else:
                if isinstance(event, yaml.CollectionEndEvent):
                    stack.pop()
                continue
            if not stack:
                whole = made
            elif isinstance(stack[-1][0], list):
                stack[-1][0].append(made)
            elif stack[-1][1]:
                stack[-1][0][stack[-1][1].pop()] = made
            elif not isinstance(made, Text):
                raise self._refuse(event.start_mark, "a key must be text")
            elif isinstance(event, yaml.ScalarEvent) and (
                event.tag == _MERGE or (made.value == "<<" and event.implicit[0])
            ):
                raise self._refuse(event.start_mark, "a merge key (<<) is refused; write out what it stands for")
            elif made.value in stack[-1][0]:
                raise self._refuse(event.start_mark, f"the key {made.value!r} exists already; keep one of them")
            else:
                stack[-1][1].append(made.value)
            if not isinstance(made, Text):
                stack.append((made, []))
                if len(stack) > _MOST_DEPTH:
                    raise self._refuse(event.start_mark, f"is nested deeper than {_MOST_DEPTH} levels")
        return whole
