"""Small random modules of Rego v1, about a quarter of which OPA accepts: what one changes of them is mostly legal."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

_TABLE = json.loads((Path(__file__).parents[2] / "core/policy/checks/builtins.json").read_text())
_COMMON = """count startswith sprintf concat upper trim max min sum sort object.get object.keys json.unmarshal
numbers.range to_number split contains lower abs array.concat regex.match union intersection is_number type_name walk
object.union time.date""".split()
_FUNCTIONS = [
    name
    for name, row in _TABLE.items()
    if not {"lacking", "deprecated", "variadic"} & row.keys() and not name.startswith("internal.")
]
_IMPORTS = ("input.a as i", "data.d", "data.krie.s.u as i", "data.foo as x", "rego.v1", "data.krie.t as tt")
_TARGETS = ("input", "input.x", "data.d", "count", "walk", "time.now_ns", "plus", "x", "input[0]")
_SHAPES = "value value truth set object function function dots default keys else".split()


class Module:
    """Writes one."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._variables: list[str] = []
        count = random.choice((1, 1, 2, 2, 3))
        self._names = ["uvw"[each] if random.random() < 0.9 else random.choice("uv") for each in range(count)]
        shapes = [random.choice(_SHAPES) for _ in self._names]
        self._arities = {
            name: random.randint(1, 2) for name, shape in zip(self._names, shapes, strict=True) if shape == "function"
        }
        lines = ["package krie.s"]
        if random.random() < 0.15:
            lines.append(f"import {random.choice(_IMPORTS)}")
        for name, shape in zip(self._names, shapes, strict=True):
            lines += [self._rule(name, shape) for _ in range(1 if random.random() < 0.8 else 2)]
        self.text = "\n".join(lines) + "\n"

    def _rule(self, name: str, shape: str) -> str:
        self._variables = []
        if shape == "function":
            head = f"{name}({', '.join(self._pattern() for _ in range(self._arities.get(name, 1)))})"
            body = self._body()
            return f"{head} := {self._expression(2)}{body}"
        body = self._body(needed=shape in ("truth", "else"))
        if shape == "truth":
            return name + body
        if shape == "set":
            return f"{name} contains {self._expression(1)}{body}"
        if shape == "object":
            return f"{name}[{self._expression(1)}] := {self._expression(1)}{body}"
        if shape == "dots":
            path = ".".join(self._random.choice("abc") for _ in range(self._random.randint(1, 2)))
            return f"{name}.{path} {self._random.choice((':=', ':=', 'contains'))} {self._expression(1)}{body}"
        if shape == "keys":
            return f"{name}.b[{self._expression(0)}] := {self._expression(1)}{body}"
        if shape == "default":
            return f"default {name} := {self._constant(1)}\n{name} := {self._constant(1)}{body}"
        if shape == "else":
            return f"{name} := {self._constant(1)}{body} else := {self._expression(1)}"
        return f"{name} := {self._expression(2)}{body}"

    def _body(self, *, needed: bool = False) -> str:
        if not needed and self._random.random() < 0.25:
            return ""
        return (
            " if {\n\t" + "\n\t".join(self._statement(2) for _ in range(self._random.choice((1, 1, 2, 2, 3)))) + "\n}"
        )

    def _statement(self, depth: int) -> str:
        chance = self._random.random()
        if chance < 0.3:
            value = self._expression(depth)
            return f"{self._new()} {':=' if chance < 0.25 else '='} {value}"
        if chance < 0.5:
            operator = self._random.choice(("==", "==", "!=", "<", ">=", "="))
            return f"{self._expression(depth)} {operator} {self._expression(depth)}"
        if chance < 0.6:
            collection = self._expression(depth - 1)
            if chance < 0.53:
                return f"some {self._pattern()}, {self._new()} in {collection}"
            return f"some {self._pattern()} in {collection}"
        if chance < 0.66 and depth > 1:
            collection, before = self._expression(depth - 1), list(self._variables)
            key = f"{self._new()}, " if chance < 0.62 else ""
            text = f"every {key}{self._new()} in {collection} {{ {self._statement(depth - 1)} }}"
            self._variables = before
            return text
        if chance < 0.72:
            return f"not {self._expression(depth)}"
        if chance < 0.85:
            return (
                self._call(depth) if chance < 0.8 else f"{self._expression(depth - 1)} in {self._expression(depth - 1)}"
            )
        if chance < 0.9:
            target = self._random.choice((*_TARGETS, *self._names, *(f"data.krie.s.{name}" for name in self._names)))
            return f"{self._expression(depth - 1)} with {target} as {self._expression(depth - 1)}"
        return self._expression(depth)

    def _new(self) -> str:
        left = [each for each in "xyzpqrst" if each not in self._variables]
        name = left[0] if left and self._random.random() < 0.97 else self._random.choice("xyz")
        self._variables.append(name)
        return name

    def _pattern(self) -> str:
        chance = self._random.random()
        if chance < 0.7:
            return self._new()
        if chance < 0.8:
            return self._constant(0) if chance < 0.75 else "_"
        return f"[{self._new()}, {self._constant(0)}]" if chance < 0.9 else f'{{"a": {self._new()}}}'

    def _constant(self, depth: int) -> str:
        chance = self._random.random()
        if depth <= 0 or chance < 0.5:
            return self._random.choice(("1", "2", "0", '"a"', '"b"', "true", "null", "false", "1.5", '""', "-1"))
        inner = [self._constant(depth - 1) for _ in range(self._random.randint(0, 3))]
        if chance < 0.7:
            return f"[{', '.join(inner)}]"
        if chance < 0.9:
            keys = self._random.sample(('"a"', '"b"', "1"), len(inner))
            return f"{{{', '.join(map(': '.join, zip(keys, inner, strict=True)))}}}"
        return f"{{{', '.join(inner)}}}" if inner else "set()"

    def _variable(self) -> str:
        if self._variables and self._random.random() < 0.93:
            return self._random.choice(self._variables)
        return self._random.choice("xyz_") if self._random.random() < 0.02 else self._constant(0)

    def _reference(self, depth: int) -> str:
        starts = ("input", "input.a", "data.d", "data.krie.s", "data.foo", "i", *self._names * 2, *self._variables * 2)
        text = self._random.choice(starts)
        for _ in range(self._random.choice((0, 0, 1, 1, 2))):
            inner = self._expression(depth - 1) if depth > 0 else self._variable()
            text += self._random.choice((".a", ".b", "[0]", "[1]", "[_]", '["a"]', "[5]", f"[{inner}]"))
        return text

    def _call(self, depth: int) -> str:
        name = self._random.choice((*self._arities, self._random.choice(_COMMON), self._random.choice(_FUNCTIONS)))
        wanted = _TABLE[name]["arguments"] if name not in self._arities else ["any"] * self._arities[name]
        arguments = [self._typed(each, depth) for each in wanted]
        if self._random.random() < 0.08:
            arguments = arguments[1:] if self._random.random() < 0.5 else [*arguments, self._expression(0)]
        return f"{name}({', '.join(arguments)})"

    def _typed(self, wanted: Any, depth: int) -> str:
        chance = self._random.random()
        if chance < 0.4:
            return (
                self._expression(depth - 1)
                if chance < 0.1
                else self._random.choice(("input.a", "data.d", *self._variables))
            )
        if isinstance(wanted, list):
            return self._typed(self._random.choice(wanted), depth)
        if isinstance(wanted, dict):
            if "object" in wanted:
                return '{"a": 1}'
            ((kind, inner),) = wanted.items()
            items = ", ".join(self._typed(each, depth - 1) for each in (inner if kind == "tuple" else [inner]))
            return f"{{{items}}}" if kind == "set" else f"[{items}]"
        known = {"string": '"a"', "number": "1", "boolean": "true", "null": "null", "object": '{"a": 1}'}
        return known.get(wanted) or self._expression(depth - 1)

    def _expression(self, depth: int) -> str:
        chance = self._random.random()
        if depth <= 0:
            return self._constant(0) if chance < 0.4 else self._variable() if chance < 0.8 else self._reference(0)
        if chance < 0.3:
            return self._constant(depth) if chance < 0.15 else self._variable()
        if chance < 0.5:
            return self._reference(depth)
        if chance < 0.6:
            sides = [self._random.choice((*self._variables, "1", "2", "input.a", "{1}")) for _ in range(2)]
            return f" {self._random.choice('+-*/%&')} ".join(sides)
        if chance < 0.75:
            return self._call(depth)
        inner = [self._expression(depth - 1) for _ in range(self._random.randint(1, 2))]
        if chance < 0.9:
            keys = (self._variable(), '"k"')  # never twice the same: OPA leaves the first one out, unread
            items = inner if chance < 0.84 else list(map(": ".join, zip(keys, inner, strict=False)))
            return f"[{', '.join(inner)}]" if chance < 0.81 else f"{{{', '.join(items)}}}"
        before = list(self._variables)
        statement = self._statement(depth - 1)
        term, key = self._expression(depth - 1), self._expression(0)
        self._variables = before
        return self._random.choice(
            (f"[{term} | {statement}]", f"{{{term} | {statement}}}", f"{{{key}: {term} | {statement}}}")
        )
