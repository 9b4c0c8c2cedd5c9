"""Documents of all kinds for a policy: near to what its rules read, and wrong in every way that there is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

from krie.policy.embedded import EmbeddedEngine
from krie.policy.engine import Package, Path

_STRING = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_NUMBER = re.compile(r"(?<![\w.\"])-?\d+(?![\w.\"])")
_ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63 - 1, 2**64 - 1, 0.5, 1e300, "", "?", "0", "1", "a", "é€😀", "\x00", "\\",
    [], {}, ["a"], {"program": "apt"}, [{"program": "apt", "exe": "/bin/sh"}], "0xffffffff81000000", "/proc/sys/", "\n",
)  # fmt: skip


class Documents:
    """Draws them."""

    def __init__(self, engine: EmbeddedEngine, random: Random) -> None:
        self._random = random
        self._packages = engine.packages
        kinds = {kind for package in engine.packages for rule in package.rules for kind in rule.kinds}
        self._kinds = [*sorted(kinds), "no.such"]
        texts = [each.text for each in engine.sources.files] + [json.dumps(engine.sources.data)]
        strings = {json.loads(f'"{each}"') for text in texts for each in _STRING.findall(text) if "\\" not in each}
        numbers = {int(each) + near for text in texts for each in _NUMBER.findall(text) for near in (-1, 0, 1)}
        self._strings, self._numbers = sorted(strings), sorted(numbers)

    def draw(self) -> tuple[tuple[Package, ...], str]:
        """Packages to ask, and a document as JSON."""
        kind = self._random.choice(self._kinds)
        concerned = tuple(each for each in self._packages if each.concerns(kind))
        asked = concerned or self._packages
        document: dict[str, Any] = {}
        for path in sorted({path for each in asked for path in each.reads(kind)}):
            if self._random.random() < 0.93:
                _put(document, path, self._value(path))
        if self._random.random() < 0.97:
            _put(document, ("event", "kind"), kind)
        if self._random.random() < 0.05:
            _put(document, self._random.choice((("event",), ("process",), ("host",), ("health",))), self._odd())
        return asked, json.dumps(document)

    def _value(self, path: Path) -> Any:
        chance = self._random.random()
        if chance < 0.35:
            return self._random.choice(self._strings)
        if chance < 0.6:
            return self._random.choice(self._numbers)
        if chance < 0.8:
            return self._random.random() < 0.5
        if chance < 0.85:
            return "".join(self._random.sample(self._strings, 2))
        if path[-1:] == ("ancestors",) and chance < 0.95:
            names = ("exe", "comm", "program")
            return [
                {name: self._random.choice(self._strings) for name in names} for _ in range(self._random.randint(0, 3))
            ]
        return self._odd()

    def _odd(self) -> Any:
        return self._random.choice(_ODD)


def _put(document: dict[str, Any], path: Path, value: Any) -> None:
    at = document
    for name in path[:-1]:
        inner = at.get(name)
        if not isinstance(inner, dict):
            inner = at[name] = {}
        at = inner
    if path:
        at[path[-1]] = value


def drawn(documents: Documents, count: int, size: int) -> Iterator[list[tuple[tuple[Package, ...], str]]]:
    """So many, in batches."""
    for start in range(0, count, size):
        yield [documents.draw() for _ in range(min(size, count - start))]


def kinds_of(documents: Iterable[str]) -> set[Any]:
    """The kinds among them."""
    found = (json.loads(each).get("event") for each in documents)
    return {json.dumps(each.get("kind")) for each in found if isinstance(each, dict)}
