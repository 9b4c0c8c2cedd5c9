"""Everything that is refused of a policy before it is evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...errors import PolicyError
from ...events.inline import NamePath
from ...events.wire import Json
from ..module import Import, Module
from ..ownership import Packages
from .braces import check_braces
from .conflicts import check_conflicts
from .expressions import Definitions, Found
from .functions import Functions
from .mentions import mentions
from .recursion import CallGraph
from .safety import Safety
from .scope import LexicalScope
from .typing import Typing
from .walk import Common


def check(modules: Sequence[Module], data: Mapping[str, Json], data_places: Mapping[str, str]) -> Definitions:
    """All definitions, by their paths.

    Raises `PolicyError` for the first thing that OPA refuses, or that the engine would take for something else.
    """
    packages = Packages()
    for module in modules:
        packages.add(module.package, f"{module.file}:{module.line}", module.owner)
    for module in modules:
        for each in module.definitions:
            packages.rule(module.package, each.name, f"{each.place}:{each.line}")
    packages.data(data, data_places)
    _imports(modules)
    check_conflicts(modules)
    functions = Functions(modules)
    safety = Safety(functions.arity)
    graph = CallGraph()
    found: dict[NamePath, list[Found]] = {}
    names: dict[str, set[str]] = {}
    for module in modules:
        names.setdefault(module.package, set()).update(each.name for each in module.definitions)
    for module in modules:
        scope = LexicalScope(module, frozenset(names[module.package]))
        for each in module.definitions:
            check_braces(each, scope)
            mentioned = list(mentions(each, scope))
            for mention in mentioned:
                functions.check(mention)
            safety.definition(each, scope)
            graph.add(module.package, each, mentioned)
            path = (*module.package.split("."), each.name, *each.path)
            found.setdefault(path, []).append((module.package, each, scope))
    scopes = {id(each): scope for definitions in found.values() for _, each, scope in definitions}
    typing = Typing(Common(ordered=safety.ordered, dependents=graph.dependents))
    for each in graph.check():
        typing.definition(each, scopes[id(each)])
    return found


def _imports(modules: Sequence[Module]) -> None:
    """The embedded engine lets all files of a package have one file's imports, and the last one's of a name."""
    known: dict[tuple[str, str], Import] = {}
    for module in modules:
        for alias, each in module.imports.items():
            other = known.setdefault((module.package, alias), each)
            if other.target != each.target:
                raise PolicyError(
                    f"{each.place}: {alias} is {'.'.join(each.target)} here and {'.'.join(other.target)} at "
                    f"{other.place}: the files of a package must mean one thing by an imported name; rename one "
                    "(`import ... as`)"
                )
    for module in modules:
        for definition in module.definitions:
            if (found := known.get((module.package, definition.name))) is not None:
                raise PolicyError(
                    f"{definition.place}:{definition.line}: {definition.name} is a rule here and an import at "
                    f"{found.place}: rename one (`import ... as`)"
                )
