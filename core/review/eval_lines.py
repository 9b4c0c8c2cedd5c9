"""Decides many events, one a line: JSON Lines in, JSON Lines out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches
from typing import Any

from ..errors import PolicyError
from ..events.given import PARTS, Values
from ..policy.policy import Policy
from .journal_reader import Piece
from .recorded import Unreadable, label, object_of


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


def decided(pieces: Iterable[Piece], policy: Policy, kinds: Collection[str]) -> Iterator[dict[str, Any]]:
    """For each line that is not blank its number, and the decision or what is wrong with the line.

    `kinds`: all that loaded plugins have.

    Lines that came together are decided together, as many as the policy likes.
    """
    values = Values()
    for piece in pieces:
        if piece.skipped:
            yield {"line": piece.line, "error": piece.skipped}
            continue
        lines = [(number, text) for number, text in enumerate(piece.text.split(b"\n"), piece.line) if text.strip()]
        for start in range(0, len(lines), policy.together):
            yield from _decided(lines[start : start + policy.together], policy, values, kinds)


def _decided(
    lines: Iterable[tuple[int, bytes]], policy: Policy, values: Values, kinds: Collection[str]
) -> Iterator[dict[str, Any]]:
    events: list[tuple[str, dict[str, Any]]] = []
    wrong: dict[int, str] = {}
    numbers = []
    for number, text in lines:
        numbers.append(number)
        try:
            document = document_of(object_of(text), values, kinds)
        except (Unreadable, PolicyError) as error:
            wrong[number] = str(error)
        else:
            events.append((document["event"]["kind"], document))
    decisions = iter(policy.decide_many(events))
    for number in numbers:
        if number in wrong:
            yield {"line": number, "error": wrong[number]}
        else:
            yield {"line": number, **next(decisions).to_json()}


def document_of(content: object, values: Values, kinds: Collection[str]) -> dict[str, Any]:
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
    process, given = content.get("process", {}), content.get("given")
    document = {
        "event": {"kind": kind, **content["event"]},
        "process": process,
        "host": content.get("host", {}),
        "health": content.get("health", {}),
    }
    if isinstance(given, dict):
        values.learn(content.get("values"))
        found = ((part, values.parsed(given.get(part))) for part in PARTS)
        known = {part: value for part, value in found if value is not None}
        if (ancestors := known.pop("ancestors", None)) is not None and isinstance(process, dict):
            document["process"] = {**process, "ancestors": ancestors}
        document |= known
    return document


def _unknown(kind: str, kinds: Collection[str]) -> str:
    """No rule is about such an event, so that a decision would only look like one."""
    near = get_close_matches(kind, kinds, 3)
    mend = f"did you mean {', '.join(near)}?" if near else "krie events lists the kinds"
    return f"no loaded plugin has the kind {label(kind)!r}; {mend}"
