"""Decides many events, one a line: JSON Lines in, JSON Lines out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..decision import Decision
from ..errors import PolicyError
from ..events.given import PARTS, Values
from ..policy.policy import Policy
from .journal_reader import Piece
from .recorded import Unreadable, object_of


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


def decided(pieces: Iterable[Piece], policy: Policy) -> Iterator[dict[str, Any]]:
    """For each line that is not blank its number, and the decision or what is wrong with the line."""
    values = Values()
    for piece in pieces:
        if piece.skipped:
            yield {"line": piece.line, "error": piece.skipped}
            continue
        for number, text in enumerate(piece.text.split(b"\n"), piece.line):
            if not text.strip():
                continue
            try:
                decision = _decided(object_of(text), policy, values)
            except (Unreadable, PolicyError) as error:
                yield {"line": number, "error": str(error)}
            else:
                yield {"line": number, **decision.to_json()}


def _decided(content: dict[str, Any], policy: Policy, values: Values) -> Decision:
    document = document_of(content, values)
    return policy.decide(document["event"]["kind"], document)


def document_of(content: object, values: Values) -> dict[str, Any]:
    """The input that a line of the journal, or a document, stands for. Raises `PolicyError`.

    Host, health and ancestors are taken from `values` where the line names them; what is not known stays out.
    """
    if not isinstance(content, dict) or not isinstance(content.get("event"), dict):
        raise PolicyError('must be an object with "event", such as a line of the journal')
    kinds = [part["kind"] for part in (content, content["event"]) if "kind" in part]
    if not kinds or not all(isinstance(each, str) for each in kinds):
        raise PolicyError('has no "kind" that is text, in the event or beside it')
    if kinds[0] != kinds[-1]:
        raise PolicyError("the event is of another kind than the line")
    process, given = content.get("process", {}), content.get("given")
    document = {
        "event": {"kind": kinds[0], **content["event"]},
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
