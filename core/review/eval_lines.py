"""Decides many events, one a line: JSON Lines in, JSON Lines out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NamedTuple

from ..decision import Decision
from ..errors import PolicyError
from ..events.given import PARTS, Values
from ..policy.policy import Policy
from .journal_reader import Piece
from .recorded import Needs, Unreadable, label, object_of

_MOST_NAMED = 8


def are_lines(start: bytes) -> bool:
    """Whether what begins so is a document a line, and more than one, rather than one document of many lines."""
    first, _, rest = start.lstrip().partition(b"\n")
    if not rest.strip():
        return False
    try:
        object_of(first)
    except Unreadable:
        return False
    return True


class Read(NamedTuple):
    """The input that a line, or a document, stands for."""

    kind: str
    document: dict[str, Any]
    lacking: tuple[str, ...] = ()
    """What rules read of such an event, and it does not say."""

    def answer(self, decision: Decision) -> dict[str, Any]:
        """What is told of it."""
        return {**decision.to_json(), **({"lacking": list(self.lacking)} if self.lacking else {})}


@dataclass(frozen=True, slots=True)
class Reading:
    """How lines are read: no rule holds for what is not there, so that `allow` would only look like a decision."""

    needs: Needs
    """What the policy reads of events of all kinds that loaded plugins have."""
    partial: bool = False
    """Whether to take what does not say all of that."""
    values: Values = field(default_factory=Values)
    """What lines told so far."""

    def read(self, content: object) -> Read:
        """The input that this is. Raises `PolicyError`, `Unreadable`."""
        read = document_of(content, self.values, self.needs.schemas)
        lacking = self.needs.lacks(*read[:2])
        if lacking and not self.partial:
            named = isinstance(content, dict) and "given" in content and set(lacking) <= set(PARTS)
            fix = "give the lines before, too, one of which tells it" if named else "add it"
            raise PolicyError(
                f"does not say what rules read of {read.kind}: {_listed(lacking)}; {fix}, or decide without it by "
                "--partial"
            )
        return read._replace(lacking=lacking)


def decided(pieces: Iterable[Piece], policy: Policy, reading: Reading) -> Iterator[dict[str, Any]]:
    """For each line that is not blank its number, and the decision or what is wrong with the line.

    Lines that came together are decided together, as many as the policy likes.
    """
    for piece in pieces:
        if piece.skipped:
            yield {"line": piece.line, "error": piece.skipped}
            continue
        lines = [(number, text) for number, text in enumerate(piece.text.split(b"\n"), piece.line) if text.strip()]
        for start in range(0, len(lines), policy.together):
            yield from _decided(lines[start : start + policy.together], policy, reading)


def _decided(lines: Iterable[tuple[int, bytes]], policy: Policy, reading: Reading) -> Iterator[dict[str, Any]]:
    found: dict[int, Read | str] = {}
    for number, text in lines:
        try:
            found[number] = reading.read(object_of(text))
        except (Unreadable, PolicyError) as error:
            found[number] = str(error)
    decisions = iter(policy.decide_many([each[:2] for each in found.values() if isinstance(each, Read)]))
    for number, each in found.items():
        yield {"line": number, **(each.answer(next(decisions)) if isinstance(each, Read) else {"error": each})}


def document_of(content: object, values: Values, kinds: Collection[str]) -> Read:
    """The input that a line of the journal, or a document, stands for. Raises `PolicyError`, also for an unknown kind.

    Host, health and ancestors are taken from `values` where the line names them; what is not known stays out.
    """
    if not isinstance(content, dict) or not isinstance(content.get("event"), dict):
        raise PolicyError('must be an object with "event", such as a line of the journal')
    said = [part["kind"] for part in (content, content["event"]) if "kind" in part]
    if not said or not all(isinstance(each, str) for each in said):
        raise PolicyError('has no "kind" that is text, in the event or beside it')
    kind = said[0]
    if kind != said[-1]:
        raise PolicyError("the event is of another kind than the line")
    if kind not in kinds:
        raise PolicyError(_unknown(kind, kinds))
    document: dict[str, Any] = {"event": {"kind": kind, **content["event"]}}
    document |= {part: content[part] for part in ("process", "host", "health") if part in content}
    given, process = content.get("given"), content.get("process", {})
    if isinstance(given, dict):
        values.learn(content.get("values"))
        found = ((part, values.parsed(given.get(part))) for part in PARTS)
        known = {part: value for part, value in found if value is not None}
        if (ancestors := known.pop("ancestors", None)) is not None and isinstance(process, dict):
            document["process"] = {**process, "ancestors": ancestors}
        document |= known
    return Read(kind, document)


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{', '.join(names[:_MOST_NAMED])}{more}"


def _unknown(kind: str, kinds: Collection[str]) -> str:
    """No rule is about such an event, so that a decision would only look like one."""
    near = get_close_matches(kind, kinds, 3)
    fix = f"did you mean {', '.join(near)}?" if near else "krie events lists the kinds"
    return f"no loaded plugin has the kind {label(kind)!r}; {fix}"
