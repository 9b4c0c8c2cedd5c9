"""What the names in a rule stand for: variables, fields of the input, data, and the rules of packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..events.inline import InlineField, NamePath
from ..events.wire import Json
from ..policy.analysis import Analysis
from ..policy.definition import Definition
from .domain import NotDecidable
from .uses import Uses
from .values import DERIVED, UNBOUND, Data, Ground, Part, Unbound, Value, Variables, looked_up, shown


@dataclass(slots=True)
class Names:
    """Follows names. Raises `NotDecidable` for what is more than one field, or none that the kernel knows."""

    analysis: Analysis
    data: Mapping[str, Json]
    kind: str
    fields: Mapping[NamePath, InlineField]
    defined: Callable[[str, list[Definition], list[Value] | None], Value]
    """The value of a helper rule of a package, or of a function's call, from its definitions."""
    uses: Uses = field(default_factory=Uses)
    at: list[Definition] = field(default_factory=list)
    """The definitions that are being walked, the innermost last."""

    def variable(self, package: str, name: str, scope: Variables) -> Value:
        """What a variable, an import or a rule of the package stands for; `UNBOUND` where there is none of the name."""
        if name in scope:
            return scope[name]
        if name == "input":
            return Part(())
        if name == "data":
            return Data(())
        if (target := self.analysis.imports(self.at[-1]).get(name)) is not None:
            value: Value = Part(()) if target[0] == "input" else Data(())
            for part in target[1:]:
                value = self.member(value, Ground((part,)))
            return value
        if definitions := self.analysis.definitions(package, name):
            return self.defined(package, definitions, None)
        return UNBOUND

    def is_new(self, package: str, name: str, scope: Variables) -> bool:
        """Whether nothing has this name yet."""
        return isinstance(self.variable(package, name, scope), Unbound)

    def member(self, base: Value, key: Value) -> Value:
        """`base[key]`."""
        if isinstance(base, Part | Data):
            if not isinstance(key, Ground) or key.values is None or len(key.values) != 1:
                raise NotDecidable(f"{shown(base)} is looked into by a name that is worked out")
            if not isinstance(key.values[0], str):
                base = whole(base)
            else:
                return self._named_member(base, (*base.path, key.values[0]))
        if isinstance(base, Ground):
            if isinstance(key, Ground):
                return Ground(looked_up(base, key))
            self.uses.absorb(key, "is a key")
            return DERIVED
        self.uses.absorb(base, "is looked into")
        self.uses.absorb(key, "is a key")
        return DERIVED

    def _named_member(self, base: Part | Data, path: NamePath) -> Value:
        if isinstance(base, Part):
            if path == ("event", "kind"):
                return Ground((self.kind,))
            if path in self.fields:
                return self.fields[path]
            if any(each[: len(path)] == path for each in self.fields):
                return Part(path)
            raise NotDecidable(f"input.{'.'.join(path)} is not an inline field of {self.kind}")
        for package in self.analysis.package_names:
            names = tuple(package.split("."))[1:]
            if path == (*names, "rules"):
                raise NotDecidable("it reads the set `rules` of a package")
            if path[: len(names)] == names and len(path) == len(names) + 1:
                if definitions := self.analysis.definitions(package, path[-1]):
                    return self.defined(package, definitions, None)
            elif names[: len(path)] == path:
                return Data(path)
        found: Any = self.data
        for name in path:
            if not isinstance(found, dict) or name not in found:
                return Ground(())
            found = found[name]
        return Ground((found,))


def whole(value: Value) -> Value:
    """The value, which must not be more than one field."""
    if isinstance(value, Part | Data):
        raise NotDecidable(f"{shown(value)} is used as a whole")
    return value
