"""What reading a policy's syntax tree tells: the rules, which kinds they name, what they read, whether they are pure.

The answers are used to evaluate less, so all are on the safe side: a rule whose kinds are not evident is evaluated for
every kind, and an `input` that is not followed by names is read whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from ..errors import DecisionError, PolicyError
from .annotations import Annotations, annotations_above
from .checks.check import check
from .checks.scope import LexicalScope, declarations
from .definition import Definition, Node, reference
from .engine import Package, Path, Rule, fired_rule
from .metadata import metadata_of
from .module import LOG_PACKAGE, Module, module_of
from .pure import is_pure
from .sources import PolicySources

KIND: Path = ("event", "kind")
_DEPTH = 5
_WANTED = 'write `rules contains {"id": ..., "action": ...} if ...`'


def _deepest(text: str) -> tuple[int, int]:
    """Most brackets that are open at once, and in which line: near enough to say where a policy is nested too deep."""
    depth, most, line = 0, (0, -1), 1
    for each in text:
        line += each == "\n"
        depth += (each in "([{") - (each in ")]}")
        most = max(most, (depth, -line))
    return most[0], -most[1]


def references(tree: Node) -> Iterator[tuple[str, Path]]:
    """Every reference in a tree, the longest form of each only, and those in its brackets."""
    found = reference(tree)
    if found is not None:
        yield found[0], found[1]
        while "RefDot" in tree or "RefBrack" in tree:
            if "RefBrack" in tree:
                yield from references(tree["RefBrack"]["index"])
            tree = tree.get("RefDot", tree.get("RefBrack"))["refr"]
    elif isinstance(tree, dict | list):
        for each in tree.values() if isinstance(tree, dict) else tree:
            if isinstance(each, dict | list):
                yield from references(each)


class Analysis:
    """All modules of a policy. Raises `PolicyError` for what OPA's checker refuses or KRIe's conventions forbid."""

    def __init__(self, trees: str, sources: PolicySources) -> None:
        """`trees`: what `regorus.Engine.get_ast_as_json` gives of the sources."""
        owners = {file.place: file.owner for file in sources.files}
        try:
            self.modules = tuple(module_of(tree, owners) for tree in json.loads(trees))
            self.scoped = check(self.modules, sources.data, sources.data_places)
            self._read()
        except RecursionError:
            (_, line), place = max((_deepest(file.text), file.place) for file in sources.files)
            raise PolicyError(f"{place}:{line}: is nested too deep; break it into helper rules") from None

    def _read(self) -> None:
        self._definitions: dict[str, list[Definition]] = {}
        self._named: dict[str, dict[str, list[Definition]]] = {}
        self._known: dict[tuple[str, str], frozenset[str]] = {}
        self._imports: dict[str, Mapping[str, Path]] = {}
        self._of_rule: dict[str, Definition] = {}
        self._scopes = {id(each): scope for found in self.scoped.values() for _, each, scope in found}
        self.annotations: dict[str, Annotations] = {}
        """METADATA by FILE:LINE of what they are above."""
        for module in self.modules:
            self._add(module)
        for module in self.modules:
            self._require_readable_imports(module)
        self.packages = tuple(
            self._package(name, definitions)
            for name, definitions in sorted(self._definitions.items())
            if name != LOG_PACKAGE and any(map(_is_rule, definitions))
        )
        seen: dict[str, Rule] = {}
        for rule in (rule for package in self.packages for rule in package.rules):
            if (other := seen.setdefault(rule.id, rule)) is not rule:
                raise PolicyError(f"{rule.place}: rule {rule.id} exists already at {other.place}; ids must be unique")

    def _add(self, module: Module) -> None:
        self._definitions.setdefault(module.package, []).extend(module.definitions)
        named = self._named.setdefault(module.package, {})
        for each in module.definitions:
            named.setdefault(each.name, []).append(each)
        self._imports[module.file] = {each.alias: each.target for each in module.imports.values()}
        lines = module.source.splitlines()
        self.annotations[f"{module.file}:{module.line}"] = annotations_above(
            lines, module.line - 1, module.file, package=True
        )
        for line in (each.line for each in module.definitions):
            self.annotations[f"{module.file}:{line}"] = annotations_above(lines, line - 1, module.file)

    def _require_readable_imports(self, module: Module) -> None:
        """The engine (regorus 0.13) evaluates a rule with definitions in several files wrongly where it is read through
        an import of its package: those of later files do not find what else is in theirs."""
        for definition in module.definitions:
            for root, path in references(definition.tree):
                target = module.imports[root].target if root in module.imports else ()
                package = ".".join(target)
                if package not in self._named:
                    continue
                for name in path[:1] or self._named[package]:
                    if len({each.place for each in self.definitions(package, name)}) > 1:
                        raise PolicyError(
                            f"{module.file}:{definition.line}: reads {package}.{name} through an import, and several "
                            f"files define it: the embedded engine would miss some; write {package}.{name} in full"
                        )

    @property
    def package_names(self) -> tuple[str, ...]:
        """All packages, those without rules too."""
        return tuple(self._definitions)

    def definitions(self, package: str, name: str) -> list[Definition]:
        """Everything in a package that defines this name."""
        return self._named.get(package, {}).get(name, [])

    def of_package(self, package: str) -> Sequence[Definition]:
        """Everything that a package defines."""
        return self._definitions.get(package, ())

    def imports(self, definition: Definition) -> Mapping[str, Path]:
        """What the file of a definition calls by another name."""
        return self._imports[definition.place]

    def _package(self, name: str, definitions: list[Definition]) -> Package:
        rules = tuple(self._rule(name, each) for each in definitions if _is_rule(each))
        reached = self.reached(name, definitions)
        return Package(name, rules, all(is_pure(each.tree, self._names(home, each)) for home, each in reached))

    def _names(self, package: str, definition: Definition) -> frozenset[str]:
        if (package, definition.place) not in self._known:
            names = frozenset(self._named[package]) | frozenset(self.imports(definition))
            self._known[package, definition.place] = names
        return self._known[package, definition.place]

    def reached(self, package: str, start: list[Definition]) -> Iterator[tuple[str, Definition]]:
        """The definitions and all that they refer to, in their own and in other packages."""
        todo = [(package, each) for each in start]
        seen: set[int] = set()
        while todo:
            home, definition = todo.pop()
            if id(definition) in seen:
                continue
            seen.add(id(definition))
            yield home, definition
            for root, path in references(definition.tree):
                full = self.imports(definition).get(root, (root,)) + path
                if full[0] != "data":
                    # Rego knows no recursion: a definition's own name in its tree is its head.
                    if root != definition.name:
                        todo += [(home, each) for each in self._named[home].get(root, ())]
                    continue
                for other, others in self._definitions.items():
                    parts = tuple(other.split("."))
                    if full[: len(parts)] == parts[: len(full)]:
                        wanted = full[len(parts)] if len(full) > len(parts) else None
                        todo += [(other, each) for each in others if wanted in (None, each.name)]

    def _rule(self, package: str, definition: Definition) -> Rule:
        place = f"{definition.place}:{definition.line}"
        if not definition.plain:
            raise PolicyError(f"{place}: {_WANTED}; nothing follows the name `rules`")
        literal = _literal(((definition.tree.get("head") or {}).get("Set") or {}).get("key"), place)
        try:
            fired = fired_rule(literal)
        except DecisionError as error:
            raise PolicyError(f"{place}: {error}") from error
        reads = set()
        for _, each in self.reached(package, [definition]):
            for root, path in references(each.tree):
                full = self.imports(each).get(root, (root,)) + path
                if full[0] == "input":
                    reads.add(full[1:])
        metadata = metadata_of(self.annotations[place])
        kinds = self._kinds(package, definition)
        rule = Rule(fired.id, package, place, metadata, fired, kinds, frozenset(reads))
        self._of_rule[place] = definition
        return rule

    def _kinds(self, package: str, definition: Definition, depth: int = 0) -> frozenset[str]:
        """The kinds that a rule demands in each of its bodies; empty where that is not evident."""
        found: set[str] = set()
        for body in definition.tree.get("bodies", ()):
            scope = self._scopes[id(definition)]
            scope = scope.within(frozenset(name for name, _ in declarations(body["query"], scope)))
            # What `with` replaces may be what is compared.
            statements = [each for each in body["query"]["stmts"] if not each.get("with_mods")]
            kinds = {kind for statement in statements for kind in _demanded(statement, scope)}
            for helper in () if kinds or depth == _DEPTH else map(_variable, statements):
                if scope.meaning(helper) != (*package.split("."), helper):
                    continue
                definitions = self.definitions(package, helper)
                if not all(map(_may_be_undefined, definitions)):
                    continue
                bodies = [self._kinds(package, each, depth + 1) for each in definitions]
                kinds |= frozenset().union(*bodies) if all(bodies) else frozenset()
            if not kinds or body["is_else"]:
                return frozenset()
            found |= kinds
        return frozenset(found)

    def documents(self, rule: Rule) -> frozenset[Path]:
        """Paths below `data` that a rule reads, as far as they are written out."""
        return self.documents_of(rule.package, [self.definition(rule)])

    def documents_of(self, package: str, definitions: list[Definition]) -> frozenset[Path]:
        """The same for any definitions."""
        found = set()
        for _, each in self.reached(package, definitions):
            for root, path in references(each.tree):
                full = self.imports(each).get(root, (root,)) + path
                if full[0] == "data":
                    found.add(full[1:])
        return frozenset(found)

    def definition(self, rule: Rule) -> Definition:
        """The rule as written."""
        return self._of_rule[rule.place]


def _is_rule(definition: Definition) -> bool:
    """Whether it is of the set `rules`, but for `default rules := set()`, by which a package says that it has none."""
    none = (
        definition.is_default
        and not definition.is_function
        and (definition.tree["value"].get("Set") or {}).get("items") == []
    )
    return definition.name == "rules" and not (definition.plain and none)


def _literal(node: Node, place: str) -> object:
    """The object of a rule's head; all of it must be written out, so that readers can rely on it."""
    if not isinstance(node, dict) or "Object" not in node:
        raise PolicyError(f"{place}: {_WANTED}")
    answer: dict[str, object] = {}
    for _, key, value in node["Object"]["fields"]:
        kind = next(iter(value))
        if "String" not in key or kind not in ("String", "Number"):
            raise PolicyError(f"{place}: id, action, scope, errno and ttl_s of a rule must be literals")
        answer[str(key["String"]["value"])] = value[kind]["value"]
    return answer


def _variable(statement: Node) -> str:
    """The name that a statement consists of; empty for any other statement."""
    expression = (statement["literal"].get("Expr") or {}).get("expr") or {}
    return str(expression["Var"]["value"]) if "Var" in expression else ""


def _may_be_undefined(definition: Definition) -> bool:
    """Whether nothing is there where its body does not hold: sets and objects by key are then empty, and are true."""
    return definition.plain and "Compr" in (definition.tree.get("head") or {})


def _demanded(statement: Node, scope: LexicalScope) -> Iterator[str]:
    """Kinds of which a statement demands one."""
    expression = (statement["literal"].get("Expr") or {}).get("expr") or {}
    comparison = expression.get("BoolExpr")
    if comparison and comparison["op"] == "Eq":
        for one, other in (("lhs", "rhs"), ("rhs", "lhs")):
            if scope.full(comparison[one]) == (("input", *KIND), True) and "String" in comparison[other]:
                yield str(comparison[other]["String"]["value"])
    membership = expression.get("Membership")
    if membership and scope.full(membership["value"]) == (("input", *KIND), True):
        collection = membership["collection"]
        items = (collection.get("Set") or collection.get("Array") or {}).get("items", [])
        if all("String" in item for item in items):
            yield from (str(item["String"]["value"]) for item in items)
