"""Bodies whose braces OPA and the embedded engine read differently: one sees statements, the other a set.

To OPA, `if { a | b == c }` is a set comprehension, which always holds, and the engine compares; behind `else` it is the
other way round. `if {a, b}` is a set to the engine, and nothing to OPA.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...errors import PolicyError
from ..definition import Definition, Node
from .scope import LexicalScope


def check_braces(definition: Definition, scope: LexicalScope) -> None:
    """Raise `PolicyError`. `scope`: that of its file."""
    for body in definition.tree.get("bodies") or ():
        query = body["query"]
        source = definition.source.encode()
        if not query["stmts"] or source[query["span"]["start"] : query["span"]["start"] + 1] != b"{":
            continue
        statement = query["stmts"][0]
        expression = statement["literal"].get("Expr", {}).get("expr", {})
        whole = statement["span"]["start"] == query["span"]["start"]
        if whole and (
            len(expression.get("Set", {}).get("items", ())) > 1 or (body["is_else"] and "SetCompr" in expression)
        ):
            raise PolicyError(f"{scope.place(statement)}: is a set, which always holds; write statements, one a line")
        if not whole and not body["is_else"] and _is_union(expression, statement["span"]["start"]):
            raise PolicyError(
                f"{scope.place(statement)}: begins with `{{ TERM |`, which OPA takes for a set that always holds; put "
                "brackets around `TERM | TERM`"
            )


def _is_union(expression: Node, start: int) -> bool:
    """Whether an expression begins with a term and `|`, without brackets."""
    for each in _first_parts(expression):
        inner = each.get("BinExpr")
        if inner is not None and inner["op"] == "Union" and inner["span"]["start"] == start:
            return not {"BinExpr", "ArithExpr"} & inner["lhs"].keys()
    return False


def _first_parts(expression: Node) -> Iterable[Node]:
    while expression:
        yield expression
        ((_, inner),) = expression.items()
        expression = (inner.get("lhs") or inner.get("value")) if isinstance(inner, dict) else None
        if not isinstance(expression, dict):
            return
