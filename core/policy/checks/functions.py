"""Which functions there are: the policy's own, and those that OPA has (`builtins.json`, from OPA's own description)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from ...errors import PolicyError
from ...events.inline import NamePath
from ..definition import Node, parameters, reference
from ..module import Module
from .head import Head
from .mentions import Mention
from .scope import LexicalScope

ARITHMETIC = {
    "Add": "plus",
    "Sub": "minus",
    "Mul": "mul",
    "Div": "div",
    "Mod": "rem",
    "Union": "or",
    "Intersection": "and",
}
"""Operators, and the builtins that they stand for."""
_FIXED = ("eq", "rego.metadata.chain", "rego.metadata.rule")
"""What OPA works out while it compiles."""
_ALWAYS_THERE = ("print",)
"""No function of the engine's, but it is compiled away."""


@dataclass(frozen=True, slots=True)
class Builtin:
    """A function that OPA has."""

    arguments: tuple[Any, ...]
    """Types: a name, a list of types one of which it must be, {"array": TYPE}, {"set": TYPE}, {"tuple": [TYPES]} or
    {"object": {KEY: TYPE}}, maybe with "others": [KEY TYPE, TYPE]."""
    result: Any
    deprecated: bool = False
    variadic: bool = False
    relation: bool = False
    """It has several answers, such as `walk`."""
    void: bool = False
    """It has none, such as `print`."""
    lacking: bool = False
    """The embedded engine does not have it."""


@cache
def builtins() -> Mapping[str, Builtin]:
    """OPA's built-in functions by name."""
    table = json.loads((files(__package__) / "builtins.json").read_text())
    return {name: Builtin(tuple(row.pop("arguments")), **row) for name, row in table.items()}


class Functions:
    """The functions of all packages."""

    def __init__(self, modules: Iterable[Module]) -> None:
        """Read all heads."""
        self._arities: dict[NamePath, int] = {}
        self._rules: set[NamePath] = set()
        for module in modules:
            for each in module.definitions:
                path = (*module.package.split("."), each.name, *each.path)
                self._rules.add(path)
                if each.is_function and len(Head.of(each, module.package).ground) == len(path):
                    self._arities[path] = len(parameters(each))

    def arity(self, scope: LexicalScope, call: Node) -> int | None:
        """How many arguments the function of a call takes; None where there is no such function, or any number may."""
        found = reference(call["fcn"])
        if found is None or found[0] in scope.declared:
            return None
        path = (*(scope.meaning(found[0]) or (found[0],)), *found[1])
        if path[0] == "data":
            return self._arities.get(path)
        builtin = builtins().get(".".join(path))
        return None if builtin is None or builtin.variadic else len(builtin.arguments)

    def check(self, mention: Mention) -> None:
        """Refuse a call of what is not a function, with too few or too many arguments, and a function that is read."""
        path = mention.path
        if mention.replaced:
            self._replaced(mention)
            return
        if mention.arguments is None:
            function = next((path[:size] for size in range(1, len(path) + 1) if path[:size] in self._arities), None)
            if function is not None and not (mention.replaces and function == path):
                place = mention.scope.place(mention.node)
                raise PolicyError(f"{place}: {function[-1]} is a function; call it: {function[-1]}(...)")
            return
        place = mention.scope.place(mention.node)
        name = ".".join(path)
        count = len(mention.arguments)
        if path[:1] == ("data",):
            if path not in self._arities:
                raise PolicyError(f"{place}: there is no function {name}{self._similar(path)}")
            arity = self._arities[path]
        else:
            builtin = builtins().get(name)
            if builtin is not None and path[0] == "internal":
                raise PolicyError(f"{place}: {name} is what OPA makes of an operator; write the operator, such as `in`")
            if builtin is None:
                shown = name or "of a variable's name"
                raise PolicyError(f"{place}: there is no function {shown}{self._similar(path, mention.scope)}")
            if builtin.deprecated:
                raise PolicyError(f"{place}: {name} is deprecated, and Rego v1 refuses it; write it otherwise")
            if builtin.lacking and name not in _ALWAYS_THERE:
                raise PolicyError(f"{place}: the embedded engine does not have OPA's function {name}; do without it")
            if builtin.void and not mention.statement:
                raise PolicyError(f"{place}: {name} has no value; write it as a statement of its own")
            if builtin.variadic:
                return
            arity = len(builtin.arguments)
        if count != arity and not (mention.statement and count == arity + 1):
            raise PolicyError(f"{place}: {name} takes {arity} argument{'s' if arity != 1 else ''}, not {count}")

    def _replaced(self, mention: Mention) -> None:
        """Refuse what `with` cannot replace."""
        path, place, name = mention.path, mention.scope.place(mention.node), ".".join(mention.path)
        if any(path[:size] in self._rules for size in range(1, len(path) + (not mention.whole))):
            raise PolicyError(f"{place}: `with` replaces a rule as a whole only, not a part of it: {name}")
        if path[0] in ("input", "data"):
            return
        builtin = builtins().get(name)
        if builtin is None:
            raise PolicyError(f"{place}: `with` replaces input, data and functions only, not {name}")
        if builtin.relation or builtin.void or path[0] == "internal" or name in _FIXED:
            raise PolicyError(
                f"{place}: `with` cannot replace OPA's {name}; replace what calls it, or what it is given"
            )

    def _similar(self, path: NamePath, scope: LexicalScope | None = None) -> str:
        name = ".".join(path)
        own = [".".join(each) for each in self._arities]
        if scope is not None:
            own = [
                *builtins(),
                *(each[-1] for each in self._arities if each[:-1] == tuple(scope.module.package.split("."))),
            ]
        close = get_close_matches(name, own, 1) if name else []
        return f"; did you mean {close[0]}?" if close else "; define it, or look up its name"
