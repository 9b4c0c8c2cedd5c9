"""Everything outside of itself that a definition mentions: references from `input` and `data` on, and calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...events.inline import NamePath
from ..definition import Definition, Node, parameters, reference
from .scope import CLOSURES, LOCAL, LexicalScope, children, declarations, pattern_variables


@dataclass(frozen=True, slots=True)
class Mention:
    """One reference or call."""

    path: NamePath
    """From `input`, `data` or a built-in function's first name on, as far as it is written out."""
    whole: bool
    """Nothing but names written out: no variable in brackets."""
    node: Node
    scope: LexicalScope
    arguments: tuple[Node, ...] | None = None
    """Of a call."""
    statement: bool = False
    """A call that is a statement: it may have one argument more, which is its answer."""
    replaces: bool = False
    """What `with` puts in something else's place."""
    replaced: bool = False
    """That in whose place it puts something."""


def mentions(definition: Definition, scope: LexicalScope) -> Iterator[Mention]:
    """All of a definition, its head too; `scope`: that of its file."""
    scope = scope.within(frozenset(name for each in parameters(definition) for name, _ in pattern_variables(each)))
    for each in parameters(definition):
        yield from _expression(each, scope)
    tree = definition.tree
    if definition.is_default:
        yield from _expression(tree["value"], scope)
        return
    shape = next(iter(tree["head"].values()))
    values = [shape["assign"]["value"]] if shape.get("assign") else []
    values += [shape["key"]] if shape.get("key") else []
    head = shape["refr"]
    while "RefBrack" in head or "RefDot" in head:
        if "RefBrack" in head:
            values.append(head["RefBrack"]["index"])
        head = next(iter(head.values()))["refr"]
    for body in tree["bodies"] or [{"query": {"stmts": []}, "is_else": False}]:
        inner = scope.within(frozenset(name for name, _ in declarations(body["query"], scope)))
        yield from _query(body["query"], scope)
        for each in [body["assign"]["value"]] if body.get("assign") else [] if body["is_else"] else values:
            yield from _expression(each, inner)


def _query(query: Node, scope: LexicalScope) -> Iterator[Mention]:
    scope = scope.within(frozenset(name for name, _ in declarations(query, scope)))
    for statement in query["stmts"]:
        for each in statement.get("with_mods") or ():
            name, rest, whole = reference(each["refr"]) or ("", (), False)
            yield Mention((*(scope.meaning(name) or (name,)), *rest), whole, each["refr"], scope, replaced=True)
            if (found := scope.full(each["as"])) is not None:  # maybe a function that takes another one's place
                yield Mention(*found, each["as"], scope, replaces=scope.meaning(name)[:1] != ("input",))
            else:
                yield from _expression(each["as"], scope)
        ((kind, node),) = statement["literal"].items()
        if kind in ("Expr", "NotExpr"):
            yield from _expression(node["expr"], scope, statement=True)
        elif kind == "SomeIn":
            for part in ("key", "value", "collection"):
                if node.get(part) is not None:
                    yield from _expression(node[part], scope)
        elif kind == "Every":
            yield from _expression(node["domain"], scope)
            names = (scope.text(node[part]) for part in ("key", "value") if node.get(part))
            yield from _query(node["query"], scope.within(frozenset(names)))


def _expression(node: Node, scope: LexicalScope, *, statement: bool = False) -> Iterator[Mention]:
    ((kind, inner),) = node.items()
    if kind == "Var":
        if (path := scope.meaning(str(inner["value"]))) != LOCAL:
            yield Mention(path, True, node, scope)
    elif kind in ("RefDot", "RefBrack"):
        if (found := scope.full(node)) is not None:
            yield Mention(*found, node, scope)
        base = node
        while "RefDot" in base or "RefBrack" in base:
            if "RefBrack" in base:
                yield from _expression(base["RefBrack"]["index"], scope)
            base = next(iter(base.values()))["refr"]
        if "Var" not in base:
            yield from _expression(base, scope)
    elif kind == "Call":
        yield _call(node, scope, statement=statement)
        for each in inner["params"]:
            yield from _expression(each, scope)
    elif kind in CLOSURES:
        inside = scope.within(frozenset(name for name, _ in declarations(inner["query"], scope)))
        yield from _query(inner["query"], scope)
        for part in ("term", "key", "value"):
            if inner.get(part) is not None:
                yield from _expression(inner[part], inside)
    else:
        for each in children(kind, inner):
            yield from _expression(each, scope)


def _call(node: Node, scope: LexicalScope, *, statement: bool) -> Mention:
    call = node["Call"]
    found = reference(call["fcn"])
    arguments = tuple(call["params"])
    if found is None:
        return Mention((), False, node, scope, arguments)
    start = scope.meaning(found[0])
    local = found[0] in scope.declared
    path = (*(start or (found[0],)), *found[1])
    return Mention(() if local else path, found[2], node, scope, arguments, statement)
