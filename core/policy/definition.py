"""One rule or function of a policy as written, and how its syntax tree is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..events.inline import NamePath

Node = Any
"""A node of the tree that regorus gives."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One rule or function as written."""

    name: str
    plain: bool
    """Its head is just this name, not `name.more` or `name[key]`."""
    tree: Node
    line: int
    place: str
    """Its file."""
    source: str
    path: NamePath = ()
    """What follows the name in the head, as far as it is written out: `("more",)` of `name.more[key]`."""

    @property
    def is_function(self) -> bool:
        """Whether it is called rather than read."""
        return bool(parameters(self)) or "Func" in (self.tree.get("head") or {})

    @property
    def is_default(self) -> bool:
        """`default name := value`."""
        return "head" not in self.tree


def reference(node: Node) -> tuple[str, NamePath, bool] | None:
    """Root variable, names behind it, and whether that is the whole reference; None for what is not a reference."""
    if not isinstance(node, dict):
        return None
    if "Var" in node:
        return str(node["Var"]["value"]), (), True
    if "RefDot" in node:
        inner, name = reference(node["RefDot"]["refr"]), str(node["RefDot"]["field"][1])
    elif "RefBrack" in node:
        index = node["RefBrack"]["index"]
        inner = reference(node["RefBrack"]["refr"])
        if inner is not None and "String" not in index:
            return inner[0], inner[1], False
        name = str(index["String"]["value"]) if "String" in index else ""
    else:
        return None
    if inner is None:
        return None
    root, path, whole = inner
    return (root, (*path, name), True) if whole else inner


def text_at(source: str, span: Node) -> str:
    """The source text of a token."""
    return source.encode()[span["start"] : span["end"]].decode()


def written(definition: Definition) -> str:
    """The whole of it as text, without the comment above it."""
    return text_at(definition.source, definition.tree["span"])


def head_values(definition: Definition) -> list[Node]:
    """What a head says of the answer: its value, the keys in it; not those of `rules`, which are literals."""
    if definition.name == "rules" and definition.plain:
        return []
    found = [definition.tree["value"]] if "value" in definition.tree else []
    for shape in (definition.tree.get("head") or {}).values():
        found += [shape["assign"]["value"]] if shape.get("assign") else []
        found += [shape["key"]] if shape.get("key") else []
        reference_ = shape["refr"]
        while "RefBrack" in reference_ or "RefDot" in reference_:
            if "RefBrack" in reference_:
                found.append(reference_["RefBrack"]["index"])
            reference_ = next(iter(reference_.values()))["refr"]
    return found


def is_constant(definition: Definition) -> bool:
    """`name := value` or `name(x) := value`, without a condition."""
    return (
        definition.plain
        and not definition.tree.get("bodies")
        and "Set" not in (definition.tree.get("head") or {"Set": 0})
    )


def parameters(definition: Definition) -> list[Node]:
    """The patterns of a function's arguments; none for a rule."""
    head = definition.tree.get("head")
    return list(head.get("Func", {}).get("args", ()) if head else definition.tree.get("args", ()))
