"""What of a decision is not told to others: `data.system.log.mask` and `data.system.log.drop`, as OPA has them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import PolicyError
from ..events.wire import Json
from ..opa.entry_points import package_of
from ..policy.regorus_errors import as_policy_error
from ..policy.sources import PolicyFile

_PACKAGE = ("system", "log")
_MASK, _DROP = "data.system.log.mask", "data.system.log.drop"
_UNDEFINED = '"<undefined>"'
_PARTS = ("input", "result")
_INDEX = re.compile(r"[+]?0*([0-9]{1,18})|-0+")
"""What Go's strconv.Atoi reads, by which OPA finds an element."""
_NO_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def masks(files: Iterable[PolicyFile]) -> bool:
    """Whether a policy says anything about what is logged."""
    return any(package_of(file.text) == _PACKAGE for file in files)


class Mask:
    """The masks of one policy. Raises `PolicyError` for what does not compile."""

    def __init__(self, files: Iterable[tuple[str, str]], data: Json) -> None:
        """`files`: place and text of every file of the policy, which the masks may refer to; `data`: its data."""
        import regorus  # noqa: PLC0415 - only where there are masks

        self._engine = regorus.Engine()
        for place, text in files:
            as_policy_error(lambda place=place, text=text: self._engine.add_policy(place, text))  # type: ignore[misc]
        as_policy_error(lambda: self._engine.add_data_json(json.dumps(data)))
        self._rules = [rule for rule in (_MASK, _DROP) if self._exists(rule)]

    def applied(self, event: dict[str, Any]) -> dict[str, Any] | None:
        """The event without what is masked; None: it is not logged at all. Raises `PolicyError`."""
        as_policy_error(lambda: self._engine.set_input_json(json.dumps(event)))
        if _DROP in self._rules and self._answer(_DROP) is True:
            return None
        return masked(event, self._answer(_MASK)) if _MASK in self._rules else event

    def _exists(self, rule: str) -> bool:
        self._engine.set_input_json("{}")
        try:
            as_policy_error(lambda: self._engine.eval_rule_as_json(rule))
        except PolicyError as error:
            if "not a valid rule path" in str(error):
                return False
        return True

    def _answer(self, rule: str) -> Json:
        try:
            text: str = as_policy_error(lambda: self._engine.eval_rule_as_json(rule))
        except PolicyError:  # its text may quote what is to be hidden
            raise PolicyError(f"{rule} cannot be evaluated for this event") from None
        answer: Json = [] if text == _UNDEFINED else json.loads(text)
        return answer


def masked(event: dict[str, Any], rules: Json) -> dict[str, Any]:
    """Apply what `mask` answered. What is not there is no error; a rule that makes no sense is a `PolicyError`, since
    what it was to hide would be told otherwise."""
    if not isinstance(rules, list):
        raise PolicyError(f"{_MASK} must be a set of paths or of objects")
    changed: dict[str, Any] = json.loads(json.dumps(event))
    erased: list[str] = []
    replaced: list[str] = []
    for rule in rules:
        op, path, value = _rule(rule)
        if op == "remove" and _removed(changed, path):
            erased.append(_pointer(path))
        elif op == "upsert" and _upserted(changed, path, value):
            replaced.append(_pointer(path))
    return {**changed, **({"erased": erased} if erased else {}), **({"masked": replaced} if replaced else {})}


# None of these messages quotes what a rule answered: that may be of the event, and messages are logged like decisions.
def _rule(rule: Json) -> tuple[str, list[str], Json]:
    found: Mapping[str, Json] = {"op": "remove", "path": rule} if isinstance(rule, str) else _mapping(rule)
    op, path = found.get("op"), found.get("path")
    if op not in ("remove", "upsert"):
        raise PolicyError(f"{_MASK}: op must be remove or upsert")
    if not isinstance(path, str) or not path.startswith("/") or path[1:].split("/")[0] not in _PARTS:
        raise PolicyError(f"{_MASK}: a path must begin with /input or /result")
    if _NO_ESCAPE.search(path):
        raise PolicyError(f"{_MASK}: in a path % must begin an escape such as %2F")
    return str(op), path[1:].split("/"), found.get("value")


def _mapping(rule: Json) -> Mapping[str, Json]:
    if not isinstance(rule, dict):
        raise PolicyError(f"{_MASK}: must hold paths or objects")
    return rule


def _pointer(path: list[str]) -> str:
    return "/" + "/".join(path)


def _removed(event: dict[str, Any], path: list[str]) -> bool:
    parent = _walk(event, path[:-1])
    if isinstance(parent, dict) and path[-1] in parent:
        del parent[path[-1]]
        return True
    if isinstance(parent, list) and (index := _index(path[-1])) is not None and index < len(parent):
        del parent[index]
        return True
    return False


def _upserted(event: dict[str, Any], path: list[str], value: Json) -> bool:
    if path[0] not in event:
        return False
    parent = _walk(event, path[:-1], make=True)
    if isinstance(parent, dict):
        parent[path[-1]] = value
        return True
    if isinstance(parent, list) and (index := _index(path[-1])) is not None and index < len(parent):
        parent[index] = value
        return True
    return False


def _walk(node: Any, path: list[str], *, make: bool = False) -> Any:
    """What is there; None where nothing is. `make`: objects on the way are made, as OPA does."""
    for part in path:
        if isinstance(node, dict):
            if make:
                node.setdefault(part, {})
            node = node.get(part)
        elif isinstance(node, list) and (index := _index(part)) is not None and index < len(node):
            node = node[index]
        else:
            return None
    return node


def _index(part: str) -> int | None:
    found = _INDEX.fullmatch(part)
    return None if found is None else int(found[1] or 0)
