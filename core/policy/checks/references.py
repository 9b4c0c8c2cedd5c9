"""References, followed step by step through the types of what they lead into."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from ..definition import Node
from .head import constant, steps_of
from .kinds import (
    ANY,
    TEXT,
    Array,
    Function,
    Kind,
    Object,
    at,
    can_equal,
    is_empty,
    keys,
    names,
    unknown,
    values,
    words,
)
from .rule_tree import Tree, find
from .scope import LOCAL
from .terms import Terms


@dataclass(slots=True)
class Layers:
    """The rules that were typed so far, and above them what `with` puts in their place."""

    layers: list[Tree] = field(default_factory=list)


@dataclass(slots=True)
class References(Terms):
    """Follows references. Those into rules are looked up in the layers."""

    world: Layers = field(default_factory=Layers)

    def from_root(self, node: Node) -> tuple[str, list[Node]]:
        """`input` or `data` and the steps of a reference from there on; nothing for a variable's."""
        base, steps = steps_of(node)
        start = self.scope.meaning(str(base["Var"]["value"])) if "Var" in base else LOCAL
        if not start:
            return "", []
        return start[0], [*({"String": {"value": each, **_place(base)}} for each in start[1:]), *steps]

    def base(self, node: Node) -> Kind:
        """The type of what a reference starts at, which is anything from now on where nothing is known of it."""
        if self.is_variable(node):
            name = str(node["Var"]["value"])
            return self.known.setdefault(name, ANY) if name != "_" else ANY
        kind = self.kind(node)
        if unknown(kind):
            self.learn(node, ANY)
            kind = self.kind(node)
        return ANY if kind is None else kind

    def document(self, root: str, steps: Sequence[Node], node: Node) -> Kind | None:
        """Check a reference below `input` or `data` against what is known of that; its type."""
        layers = self.world.layers
        self._check_document(layers, root, steps, node)
        path = [constant(each) for each in steps]
        kind = find(layers, [(TEXT, root), *path])
        if isinstance(kind, Function):
            self.refuse(node, "this is a function", "call it")
        return kind

    def _check_document(self, layers: Sequence[Tree], root: str, steps: Sequence[Node], node: Node) -> None:
        for layer in reversed(layers):
            tree = layer.children.get((TEXT, root))
            if tree is not None and tree.kind is not None:
                self.follow(tree.kind, steps, node)
                return
            for number, step in enumerate(steps if tree is not None else ()):
                assert tree is not None
                key = constant(step)
                if number < 2 and key is not None and key[0] != TEXT:
                    self.refuse(node, f"{root} has names here, and no other keys", "write a name")
                if key is None and self.is_variable(step):
                    self.index(step, keys(tree.extent()), node)
                elif key is None and not {"Array", "Object", "Set"} & step.keys():
                    self._worked_out(step, keys(tree.extent()), node)
                tree = tree.children.get(key) if key is not None else None
                if tree is None:
                    break
                if tree.kind is not None:
                    self.follow(tree.kind, steps[number + 1 :], node)
                    return
            else:
                if tree is not None:
                    return
        for step in steps:
            if self.is_variable(step):
                self.index(step, ANY, node)

    def index(self, step: Node, kind: Kind | None, node: Node) -> None:
        """Learn what a variable in brackets is from what the keys are, or check that it can be one."""
        name = str(step["Var"]["value"])
        if name == "_" or kind is None:
            return
        if name not in self.known:
            self.known[name] = kind
        elif not can_equal(self.known[name], kind):
            shown = f"the keys here are {' or '.join(sorted(names(kind))) or words(kind)}"
            self.refuse(node, f"{name} is {words(self.known[name])}, and {shown}", "index by what can be a key")

    def follow(self, kind: Kind | None, steps: Sequence[Node], node: Node) -> Kind | None:
        """What is below a value of a type."""
        for step in steps:
            key = constant(step)
            if is_empty(kind):
                if key is not None:
                    self.refuse(
                        node, f"{words(kind)} has no {_shown(key[1])}", "look there for its elements, by `some`"
                    )
                if self.is_variable(step):
                    self.index(step, keys(kind) if self.kind(step) is not None else ANY, node)
                return ANY
            possible = keys(kind)
            if possible is None:
                self.refuse(node, f"{words(kind)} has nothing below it", "drop what follows it")
            if key is not None:
                below = at(kind, key)
                if below is None:
                    self._lacks(kind, key[1], node)
                kind = below
                continue
            if self.is_variable(step):
                self.index(step, possible, node)
            elif "Array" in step or "Object" in step or "Set" in step:
                if not self.learn(step, possible):
                    self.refuse(node, f"the keys here are {words(possible)}", "index by what can be a key")
            else:
                self._worked_out(step, possible, node)
            kind = values(kind)
        return kind

    def _worked_out(self, step: Node, possible: Kind | None, node: Node) -> None:
        """Check an index that is an expression."""
        if (own := self.kind(step)) is not None and possible is not None and not can_equal(own, possible):
            what = f"looks up {words(own)}, and the keys here are {words(possible)}"
            self.refuse(node, what, "index by what can be a key")

    def _lacks(self, kind: Kind | None, key: object, node: Node) -> NoReturn:
        shown = words(kind)
        fix = "check its name"
        if isinstance(kind, Object):
            shown = "the object"
            fix = f"it has {', '.join(_shown(name[1]) for name, _ in kind.fields[:12])}" if kind.fields else fix
        elif isinstance(kind, Array):
            fix = "count its elements from 0"
        self.refuse(node, f"{shown} has no {_shown(key)}", fix)


def _place(node: Node) -> dict[str, object]:
    return {"span": node["Var"]["span"]}


def _shown(key: object) -> str:
    return json.dumps(key) if not isinstance(key, str) else key
