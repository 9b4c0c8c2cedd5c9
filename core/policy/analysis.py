"""What reading a policy's syntax tree tells: the rules, which kinds they name, what they read, whether they are pure.

The answers are used to evaluate less, so all are on the safe side: a rule whose kinds are not evident is evaluated for
every kind, and an `input` that is not followed by names is read whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import DecisionError, PolicyError
from .engine import Package, Path, Rule, fired_rule

Node = Any
KIND: Path = ("event", "kind")
_PURE = frozenset(
    """abs all any array.concat array.flatten array.reverse array.slice bits.and bits.lsh bits.negate bits.or bits.rsh
    bits.xor ceil concat contains count endswith floor format_int glob.match indexof indexof_n intersection is_array
    is_boolean is_null is_number is_object is_set is_string json.filter json.remove json.unmarshal lower max min
    net.cidr_contains numbers.range object.filter object.get object.keys object.remove object.subset object.union
    object.union_n product regex.find_n regex.is_valid regex.match regex.replace regex.split replace round set_diff sort
    split sprintf startswith strings.any_prefix_match strings.any_suffix_match strings.count strings.replace_n
    strings.reverse substring sum to_number trim trim_left trim_prefix trim_right trim_space trim_suffix type_name union
    units.parse units.parse_bytes upper walk""".split()
)
"""Built-in functions that always give the same answer. Any other one keeps its package out of the memo."""


def reference(node: Node) -> tuple[str, Path, bool] | None:
    """Root variable, names behind it, and whether that is the whole reference; None for what is no reference."""
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


def _nodes(tree: Node) -> Iterator[Node]:
    """Every node, parents first."""
    yield tree
    for each in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        if isinstance(each, dict | list):
            yield from _nodes(each)


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


@dataclass(frozen=True, slots=True)
class _Definition:
    """One rule or function as written."""

    name: str
    tree: Node
    line: int
    place: str
    source: str


class Analysis:
    """All modules of a policy. Raises `PolicyError` for what the conventions of KRIe forbid."""

    def __init__(self, modules: list[Node]) -> None:
        """`modules`: what `regorus.Engine.get_ast_as_json` gives."""
        self._definitions: dict[str, list[_Definition]] = {}
        self._imports: dict[str, dict[str, Path]] = {}
        for module in modules:
            self._add(module["ast"], str(module["source"]["file"]), str(module["source"]["contents"]))
        self.packages = tuple(
            self._package(name, definitions)
            for name, definitions in sorted(self._definitions.items())
            if any(each.name == "rules" for each in definitions)
        )
        seen: dict[str, Rule] = {}
        for rule in (rule for package in self.packages for rule in package.rules):
            if (other := seen.setdefault(rule.id, rule)) is not rule and other.package != rule.package:
                raise PolicyError(f"{rule.place}: rule {rule.id} exists already at {other.place}; ids must be unique")

    def _add(self, tree: Node, place: str, source: str) -> None:
        found = reference(tree["package"]["refr"])
        name = ".".join(("data", found[0], *found[1])) if found is not None else "data"
        if not name.startswith("data.krie."):
            raise PolicyError(f"{place}:{tree['package']['span']['line']}: its package must be named krie.<name>")
        imports = self._imports.setdefault(name, {})
        for each in tree["imports"]:
            target = reference(each["refr"])
            if target is not None:
                alias = (each.get("as") or {}).get("value") if isinstance(each.get("as"), dict) else None
                imports[alias or (target[1][-1] if target[1] else target[0])] = (target[0], *target[1])
        for node in tree["rules"]:
            (body,) = node.values()
            head = body.get("head") or {}
            shape = next(iter(head.values())) if head else body
            target = reference(shape["refr"])
            line = int(body["span"]["line"])
            self._definitions.setdefault(name, []).append(
                _Definition(target[0] if target is not None else "", body, line, place, source)
            )

    def _package(self, name: str, definitions: list[_Definition]) -> Package:
        rules = tuple(self._rule(name, each) for each in definitions if each.name == "rules")
        reached = [definition for _, definition in self._reached(name, definitions)]
        return Package(name, rules, all(_pure(each.tree, self._names(name)) for each in reached))

    def _names(self, package: str) -> frozenset[str]:
        return frozenset(each.name for each in self._definitions.get(package, ())) | frozenset(
            self._imports.get(package, {})
        )

    def _reached(self, package: str, start: list[_Definition]) -> Iterator[tuple[str, _Definition]]:
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
                full = self._imports.get(home, {}).get(root, (root,)) + path
                if full[0] != "data":
                    # Rego knows no recursion: a definition's own name in its tree is its head.
                    todo += [(home, each) for each in self._definitions[home] if root == each.name != definition.name]
                    continue
                for other, others in self._definitions.items():
                    parts = tuple(other.split("."))
                    if full[: len(parts)] == parts[: len(full)]:
                        wanted = full[len(parts)] if len(full) > len(parts) else None
                        todo += [(other, each) for each in others if wanted in (None, each.name)]

    def _rule(self, package: str, definition: _Definition) -> Rule:
        place = f"{definition.place}:{definition.line}"
        literal = _literal((definition.tree["head"].get("Set") or {}).get("key"), place)
        try:
            fired = fired_rule(literal)
        except DecisionError as error:
            raise PolicyError(f"{place}: {error}") from error
        reads = set()
        for home, each in self._reached(package, [definition]):
            for root, path in references(each.tree):
                full = self._imports.get(home, {}).get(root, (root,)) + path
                if full[0] == "input":
                    reads.add(full[1:])
        title, severity = _metadata(definition)
        return Rule(
            fired.id, package, place, title, severity, str(fired.action), _kinds(definition.tree), frozenset(reads)
        )


def _literal(node: Node, place: str) -> object:
    """The object of a rule's head; all of it must be written out, so that readers can rely on it."""
    if not isinstance(node, dict) or "Object" not in node:
        raise PolicyError(f'{place}: write `rules contains {{"id": ..., "action": ...}} if ...`')
    answer: dict[str, object] = {}
    for _, key, value in node["Object"]["fields"]:
        kind = next(iter(value))
        if "String" not in key or kind not in ("String", "Number"):
            raise PolicyError(f"{place}: id, action, scope, errno and ttl_s of a rule must be literals")
        answer[str(key["String"]["value"])] = value[kind]["value"]
    return answer


def _kinds(tree: Node) -> frozenset[str]:
    """The kinds that a rule demands in each of its bodies; empty where that is not evident."""
    found: set[str] = set()
    for body in tree["bodies"]:
        kinds = {kind for statement in body["query"]["stmts"] for kind in _demanded(statement)}
        if not kinds or body["is_else"]:
            return frozenset()
        found |= kinds
    return frozenset(found)


def _demanded(statement: Node) -> Iterator[str]:
    expression = (statement["literal"].get("Expr") or {}).get("expr") or {}
    comparison = expression.get("BoolExpr")
    if comparison and comparison["op"] == "Eq":
        for one, other in (("lhs", "rhs"), ("rhs", "lhs")):
            if reference(comparison[one]) == ("input", KIND, True) and "String" in comparison[other]:
                yield str(comparison[other]["String"]["value"])
    membership = expression.get("Membership")
    if membership and reference(membership["value"]) == ("input", KIND, True):
        collection = membership["collection"]
        items = (collection.get("Set") or collection.get("Array") or {}).get("items", [])
        if all("String" in item for item in items):
            yield from (str(item["String"]["value"]) for item in items)


def _pure(tree: Node, own: frozenset[str]) -> bool:
    for node in _nodes(tree):
        call = node.get("Call") if isinstance(node, dict) else None
        if call is None:
            continue
        found = reference(call["fcn"])
        name = ".".join((found[0], *found[1])) if found is not None else ""
        if name not in _PURE and not name.startswith("data.") and name.partition(".")[0] not in own:
            return False
    return True


def _metadata(definition: _Definition) -> tuple[str, str]:
    """Title and severity of the METADATA comment above a rule."""
    lines = definition.source.splitlines()
    block: list[str] = []
    index = definition.line - 2
    while index >= 0 and lines[index].startswith("#"):
        block.insert(0, lines[index])
        index -= 1
    text = "\n".join(block)
    title = re.search(r"^# title: (.+)$", text, re.MULTILINE)
    severity = re.search(r"\bseverity: (\w+)", text)
    return title[1].strip() if title else "", severity[1] if severity else ""


def unknown_names(rules: tuple[Rule, ...], fields: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    """Probable typing errors: kinds that no loaded plugin has, and event fields that none of a rule's kinds has."""
    problems = []
    for rule in rules:
        unknown = sorted(rule.kinds - fields.keys())
        if unknown:
            problems.append(f"{rule.place}: rule {rule.id} names {', '.join(unknown)}, which no loaded plugin emits")
        kinds = (rule.kinds & fields.keys()) or fields.keys()
        known = {"kind"}.union(*(fields[kind] for kind in kinds))
        for path in sorted(rule.reads):
            if path[0] == "event" and len(path) > 1 and path[1] not in known:
                problems.append(
                    f"{rule.place}: rule {rule.id} reads input.event.{path[1]}, which its events do not have"
                )
    return tuple(problems)
