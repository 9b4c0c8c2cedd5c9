"""What the terms of a policy can be; `krie.policy.checks.inference` walks the statements that they are in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ...events.inline import NamePath
from ..definition import Definition, Node, reference
from .asked import Asked
from .comparison import differences, plural, similar
from .functions import ARITHMETIC, builtins
from .looked_up import element_at, got, listed_paths, near, same_on_both_sides, walked_to, written_path
from .operations import answer_of, mistaken
from .scope import CLOSURES, LOCAL, LexicalScope, meet
from .types import (
    ANY,
    ARRAY,
    BOOLEAN,
    NULL,
    NUMBER,
    OBJECT,
    SET,
    TEXT,
    Type,
    of_array,
    of_builtin,
    of_constant,
    of_elements,
    of_object,
    overlap,
    shared,
    union,
)

Report = Callable[[str, str, str], None]
"""Gets place, what is wrong, and how to fix it."""
Types = dict[str, Type]
_UNLIKE = frozenset({"Ne", "Lt", "Gt"})
_COMPARISONS = {"Eq": "==", "Ne": "!=", "Lt": "<", "Le": "<=", "Gt": ">", "Ge": ">="}


@dataclass(slots=True)
class World:
    """What is known from outside of the rules."""

    input: Type = ANY
    data: Type = ANY
    always: frozenset[str] = frozenset()
    """Fields that each of the events has."""


Found = tuple[str, Definition, LexicalScope]
"""A package, one of its definitions, and the scope of its file."""
Definitions = Mapping[NamePath, list[Found]]
"""By path from `data` on."""


@dataclass(slots=True)
class Expressions(ABC):
    """The terms of one policy. `definitions` by path from `data` on."""

    definitions: Definitions
    world: World
    report: Report
    passed: dict[NamePath, list[Type]] = field(default_factory=dict)
    """Arguments that calls pass to a function: grows while the calls are walked."""
    asked: Asked = field(default_factory=Asked)
    """Grows likewise."""
    silent: int = field(default=0, init=False)
    """Rules that are being followed: what is wrong with them is told where they are walked themselves."""
    replaced: frozenset[NamePath] = field(default=frozenset(), init=False)
    """What `with` replaces, as far as its paths are written out."""

    @abstractmethod
    def answer(self, path: NamePath) -> Type:
        """What a rule is, or a function answers."""

    @abstractmethod
    def query(self, query: Node, scope: LexicalScope, known: Types) -> LexicalScope:
        """Walk the statements, learning what variables are; the scope within."""

    @abstractmethod
    def defined(self, node: Node, scope: LexicalScope, known: Types, *, is_value: bool) -> None:
        """Tell where the engines differ because a part of it is undefined."""

    def tell(self, scope: LexicalScope, node: Node, what: str, fix: str) -> None:
        """Report, unless a rule is only followed from another one."""
        if not self.silent:
            self.report(scope.place(node), what, fix)

    def bind(self, pattern: Node, value: Type, known: Types) -> None:
        """Learn what the variables of a pattern are."""
        ((kind, inner),) = pattern.items()
        if kind == "Var" and inner["value"] != "_":
            known.setdefault(str(inner["value"]), value)
        elif kind == "Array":
            for at, each in enumerate(inner["items"]):
                self.bind(each, value.place(at), known)
        elif kind == "Object":
            for _, key, each in inner["fields"]:
                member = value.member(str(key["String"]["value"])) if "String" in key else None
                self.bind(each, member or ANY, known)

    def expression(self, node: Node, scope: LexicalScope, known: Types) -> Type:
        """What a term can be; tells what is wrong with it."""
        ((kind, inner),) = node.items()
        if kind in ("String", "RawString", "Number", "Bool"):
            return of_constant(inner["value"])
        if kind == "Null":
            return NULL
        if kind in ("Var", "RefDot", "RefBrack"):
            return self._reference(node, scope, known)
        if kind == "BoolExpr":
            types = self.expression(inner["lhs"], scope, known), self.expression(inner["rhs"], scope, known)
            self.compare(scope, inner["lhs"], _COMPARISONS[inner["op"]], types)
            if inner["op"] in _UNLIKE and (whole := same_on_both_sides(inner, scope)):
                what = f"compares {whole} with itself by {_COMPARISONS[inner['op']]}"
                self.tell(scope, inner["lhs"], what, "compare with another value")
            return BOOLEAN
        if kind == "Membership":
            return self._membership(inner, scope, known)
        if kind in ("Array", "Set"):
            items = [self.expression(each, scope, known) for each in inner["items"]]
            return of_array(items) if kind == "Array" else of_elements(SET, items)
        if kind == "Object":
            return self._object(inner, scope, known)
        if kind == "Call":
            return self._call(node, scope, known)
        if kind in ("ArithExpr", "BinExpr"):
            types_ = [self.expression(inner[side], scope, known) for side in ("lhs", "rhs")]
            name = ARITHMETIC[inner["op"]]
            self._arguments(scope, node, name, types_, builtins()[name].arguments)
            return answer_of(name, types_, of_builtin(builtins()[name].result))
        if kind == "UnaryExpr":
            self.expression(inner["expr"], scope, known)
            return NUMBER
        if kind in CLOSURES:
            own = dict(known)
            within = self.query(inner["query"], scope, own)
            results = [inner[part] for part in ("term", "key", "value") if inner.get(part)]
            for each in results:
                self.defined(each, within, own, is_value=True)
            parts = [self.expression(each, within, own) for each in results]
            if kind == "ObjectCompr":
                return of_elements(OBJECT, parts[-1:])
            return of_elements(ARRAY if kind == "ArrayCompr" else SET, parts[:1])
        return ANY

    def _object(self, node: Node, scope: LexicalScope, known: Types) -> Type:
        members: dict[str, Type] = {}
        closed = True
        for _, key, value in node["fields"]:
            self.expression(key, scope, known)
            type_ = self.expression(value, scope, known)
            closed = closed and "String" in key
            if closed:
                members[str(key["String"]["value"])] = type_
        return of_object(members) if closed else OBJECT

    def _reference(self, node: Node, scope: LexicalScope, known: Types) -> Type:
        """Follow it name by name; rules of the policy are found by the longest part that is one's path."""
        steps = []
        base = node
        while "RefDot" in base or "RefBrack" in base:
            ((kind, inner),) = base.items()
            steps.append(inner["index"] if kind == "RefBrack" else {"String": {"value": inner["field"][1]}})
            base = inner["refr"]
        steps.reverse()
        if "Var" not in base:
            return self._follow(self.expression(base, scope, known), steps, node, scope, known)
        name = str(base["Var"]["value"])
        if not (start := scope.meaning(name)):
            return self._follow(known.get(name, ANY), steps, node, scope, known)
        written = list(start[1:])
        while steps and "String" in steps[0]:
            written.append(str(steps.pop(0)["String"]["value"]))
        path = (start[0], *written)
        unknown = any(meet(path, each) for each in self.replaced)
        if path[:2] == ("data", "krie") and not unknown:
            found = self._of_package(path, steps, node, scope, known)
            return found if not self.replaced else ANY  # what rules are may follow from what is replaced
        value = ANY if unknown else self.world.input if start[0] == "input" else self.world.data
        if start[0] in ("input", "data"):
            return self._follow(value, [*({"String": {"value": each}} for each in written), *steps], node, scope, known)
        return ANY

    def _of_package(self, path: NamePath, steps: list[Node], node: Node, scope: LexicalScope, known: Types) -> Type:
        for size in range(len(path), 0, -1):
            if (found := path[:size]) in self.definitions:
                if self.definitions[found][0][1].is_function:
                    return ANY
                rest = [*({"String": {"value": each}} for each in path[size:]), *steps]
                self.asked.read(found, scope.place(node))
                return self._follow(self.answer(found), rest, node, scope, known)
        packages = {tuple(package.split(".")) for each in self.definitions.values() for package, _, _ in each}
        below = any(each[: len(path)] == path for each in (*packages, *self.definitions))
        if not below and not steps:
            names = [".".join(each) for each in self.definitions]
            self.tell(scope, node, f"{'.'.join(path)} is neither a rule nor a package", similar(".".join(path), names))
        keys = {each[len(path)] for each in self.definitions if len(each) > len(path) and each[: len(path)] == path}
        virtual = Type(OBJECT.kinds, members=dict.fromkeys(keys, ANY), shared=True)
        for number, each in enumerate(steps):
            self._index(each, virtual if not number else ANY, scope, known)
        return ANY

    def _follow(self, value: Type, steps: Iterable[Node], node: Node, scope: LexicalScope, known: Types) -> Type:
        written = True  # are all names until here
        for step in steps:
            if value.known and not value.kinds & {"object", "array", "set"}:
                self.tell(scope, node, f"{value.shown} has nothing below it", "drop what follows it")
                value = ANY
            text = str(step["String"]["value"]) if "String" in step else None
            if "String" in step and "object" in value.kinds:
                member = value.member(text or "")
                if member is None:
                    whose = value.name or "the object"
                    fix = similar(text or "", value.members or (), f"; {whose} has ")
                    self.tell(scope, node, f"{whose} has no {text}", fix)
                elif text not in (value.members or {}) and (right := near(text or "", value)):
                    self.tell(scope, node, f"no element of {value.name[:-3]} has {text}", f"did you mean {right}?")
                value = member or ANY
            else:
                if text is not None and value.kinds == SET.kinds and not overlap(value.element(), TEXT):
                    self.tell(
                        scope, node, f"{value.shown} of {plural(value.items)} has no {text}", "drop what follows it"
                    )
                if value.kinds == ARRAY.kinds and text is not None:
                    self.tell(scope, node, f"an array has no {text}", "count its elements from 0")
                domain = self._index(step, value, scope, known)
                if value.kinds == SET.kinds and written:
                    self.asked.by(scope.place(node), domain)
                written = False
                value = element_at(step, value)
        return value

    def _index(self, step: Node, value: Type, scope: LexicalScope, known: Types) -> str:
        """Look at an index; the domain of what it is."""
        name = str(step["Var"]["value"]) if "Var" in step else ""
        if name and name not in known and scope.meaning(name) == LOCAL:
            known[name] = value.key() if name != "_" else ANY
            return ""
        index = self.expression(step, scope, known)
        if value.kinds == SET.kinds or value.is_literal:
            self.compare(scope, step, "in", (index, value.key()))
        return index.domain

    def _membership(self, node: Node, scope: LexicalScope, known: Types) -> Type:
        key = self.expression(node["key"], scope, known) if node.get("key") is not None else ANY
        value = self.expression(node["value"], scope, known)
        collection = self.expression(node["collection"], scope, known)
        whole = reference(node["collection"])
        if node.get("key") is None and collection.kinds in (ARRAY.kinds, SET.kinds) and whole and whole[2]:
            self.asked.by(scope.place(node["collection"]), value.domain)
        if key.known and collection.is_literal:
            self.compare(scope, node["key"], "in", (key, collection.key()))
        if collection.known and not collection.kinds & {"array", "set", "object"}:
            fix = (
                "compare by ==, or look for a part of a text by contains()"
                if "string" in collection.kinds
                else "use =="
            )
            self.tell(scope, node["collection"], f"{collection.shown} is not a collection, so nothing is in it", fix)
        elif collection.is_literal or not (
            collection.members and collection.items is None and "object" in collection.kinds
        ):
            self.compare(scope, node["value"], "in", (value, collection.element()))
        return BOOLEAN

    def _call(self, node: Node, scope: LexicalScope, known: Types) -> Type:
        call = node["Call"]
        found = reference(call["fcn"])
        if found is None or found[0] in scope.declared:
            return ANY
        path = (*(scope.meaning(found[0]) or (found[0],)), *found[1])
        builtin = builtins().get(".".join(path))
        arity = len(builtin.arguments) if builtin is not None else 0
        types = []
        for position, each in enumerate(call["params"]):
            new = position == arity and builtin is not None and "Call" not in each
            types.append(ANY if new else self.expression(each, scope, known))
        if path in self.definitions:
            before = self.passed.get(path, types)
            self.passed[path] = [shared(union(pair)) for pair in zip(before, types, strict=False)]
            return self.answer(path)
        if builtin is None or builtin.variadic:
            return ANY
        self._arguments(scope, node, ".".join(path), types, builtin.arguments)
        answer = answer_of(".".join(path), types, of_builtin(builtin.result))
        if path == ("object", "get") and (names := written_path(call["params"][1])) is not None:
            answer, misspelt = got(types[0], names, types[2])
            if misspelt is not None:
                self.tell(scope, node, f"{misspelt[0]} has no {misspelt[1]}", f"did you mean {misspelt[2]}?")
        elif path == ("object", "get") and types[0].is_literal and types[1].kinds == TEXT.kinds:
            self.compare(scope, call["params"][1], "in", (types[1], types[0].key()))
        for names in listed_paths(path, call["params"][1] if arity > 1 else {}):
            if (misspelt := got(types[0], names, ANY)[1]) is not None:
                self.tell(scope, node, f"{misspelt[0]} has no {misspelt[1]}", f"did you mean {misspelt[2]}?")
        if len(call["params"]) > arity:
            pattern = call["params"][arity]
            if path == ("walk",) and (written := walked_to(pattern)) is not None:
                steps, pattern = written
                answer = self._follow(types[0], steps, node, scope, known)
            self.bind(pattern, answer, known)
        return answer

    def _arguments(
        self, scope: LexicalScope, node: Node, name: str, types: list[Type], wanted: Iterable[object]
    ) -> None:
        for what, fix in mistaken(name, types):
            self.tell(scope, node, what, fix)
        for number, (type_, declared) in enumerate(zip(types, wanted, strict=False), 1):
            expected = of_builtin(declared)
            if not overlap(type_, expected):
                words = f"argument {number} of {name}" if name not in ARITHMETIC.values() else f"an operand of {name}"
                inner = type_.items is not None and bool(type_.kinds & expected.kinds)
                what = f"a collection of {plural(type_.items)}" if inner and type_.items else type_.shown
                elements = f" of {plural(expected.items)}" if inner and expected.items else ""
                self.tell(scope, node, f"{words} is {what}", f"it must be {expected.shown}{elements}")

    def compare(self, scope: LexicalScope, node: Node, operator: str, types: tuple[Type, Type]) -> None:
        """Tell where two values can never compare so."""
        for what, fix in differences(*types, operator):
            self.tell(scope, node, what, fix)
