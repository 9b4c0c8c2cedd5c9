"""What a name means where it is written: a variable, an import, a rule of the package, or `input` and `data`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...events.inline import NamePath
from ..definition import Node, reference, text_at
from ..module import Module

CLOSURES = frozenset({"ArrayCompr", "SetCompr", "ObjectCompr"})
LOCAL: NamePath = ()
"""What `LexicalScope.meaning` answers for a variable."""


@dataclass(frozen=True, slots=True)
class LexicalScope:
    """The names of one file, and the variables declared around one place in it."""

    module: Module
    rules: frozenset[str]
    """Names that the package defines, in all of its files."""
    declared: frozenset[str] = frozenset()
    """Variables that hide imports and rules of the same name."""

    def within(self, names: frozenset[str]) -> LexicalScope:
        """For a place where these are declared too."""
        return LexicalScope(self.module, self.rules, self.declared | names)

    def meaning(self, name: str) -> NamePath:
        """The path from `input` or `data`; `LOCAL` for a variable."""
        if name in self.declared:
            return LOCAL
        if (found := self.module.imports.get(name)) is not None:
            return found.target
        if name in self.rules:
            return (*self.module.package.split("."), name)
        return (name,) if name in ("input", "data") else LOCAL

    def full(self, node: Node) -> tuple[NamePath, bool] | None:
        """NamePath of a reference as far as it is written out, and whether that is all; None for a variable's."""
        found = reference(node)
        if found is None or not (start := self.meaning(found[0])):
            return None
        return (*start, *found[1]), found[2]

    def text(self, span: Node) -> str:
        """The source text of a token."""
        return text_at(self.module.source, span)

    def place(self, node: Node) -> str:
        """FILE:LINE:COL of an expression, a statement or a token."""
        start = start_of(node) - ("String" in node or "RawString" in node)  # theirs is that of the text within
        before = self.module.source.encode()[:start].decode(errors="replace")
        return f"{self.module.file}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


def meet(one: NamePath, other: NamePath) -> bool:
    """Whether one is the other, or lies below it."""
    return all(left == right for left, right in zip(one, other, strict=False))


def start_of(node: Node) -> int:
    """Offset in bytes; the lines and columns that the engine gives are those of a reference's last dot."""
    while "start" not in node:
        node = node["span"] if "span" in node else next(iter(node.values()))
    return int(node["start"])


def pattern_variables(node: Node) -> Iterator[tuple[str, Node]]:
    """Variables that a pattern binds: not those of keys, sets and references."""
    ((kind, inner),) = node.items()
    if kind == "Var":
        yield str(inner["value"]), node
    elif kind == "Array":
        for each in inner["items"]:
            yield from pattern_variables(each)
    elif kind == "Object":
        for each in inner["fields"]:
            yield from pattern_variables(each[2])


def declarations(query: Node, scope: LexicalScope) -> Iterator[tuple[str, Node]]:
    """Variables that a query's statements declare, each as often as it is declared."""
    for statement in query["stmts"]:
        ((kind, node),) = statement["literal"].items()
        if kind == "SomeVars":
            yield from ((scope.text(each), each) for each in node["vars"])
        elif kind == "SomeIn":
            for part in ("key", "value"):
                if node.get(part) is not None:
                    yield from pattern_variables(node[part])
        elif kind == "Expr" and (assigned := node["expr"].get("AssignExpr")) and assigned["op"] == "ColEq":
            yield from pattern_variables(assigned["lhs"])


def children(kind: str, inner: Node) -> list[Node]:
    """The expressions that one is made of, but for references, calls and closures."""
    if kind in ("Array", "Set"):
        return list(inner["items"])
    if kind == "Object":
        return [part for each in inner["fields"] for part in each[1:]]
    if kind == "Membership":
        return [inner[part] for part in ("key", "value", "collection") if inner.get(part) is not None]
    return [inner[part] for part in ("lhs", "rhs", "expr") if isinstance(inner, dict) and inner.get(part) is not None]
