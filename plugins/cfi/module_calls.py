"""Calls of locked functions that modules make, by their files: what is legal now, and what is known of others."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from krie import PRESENT, KernelError, LoadedModule, Map

from .background import Asked
from .maps import Place

_PROGRAM = (sys.executable, "-I", "-m", "krie.plugins.cfi.module_reading")
_OPERATION = "reading the files of modules"
UNREAD, WITHOUT, READ = "", "none", "read"
_log = logging.getLogger("krie")


@dataclass(frozen=True, slots=True)
class _Known:
    """Of one module."""

    name: str
    code: Sequence[range]
    """Empty where it has no file of its build."""
    legal: Sequence[Place]
    open: Sequence[str]


Ask = Callable[[str, Sequence[str], Mapping[str, Any]], Asked]


class ModuleCalls:
    """While the agent is armed. A module that was just loaded counts as unread until its file was looked at."""

    def __init__(
        self, legal: Map, numbers: Mapping[str, int], through: Mapping[str, Sequence[str]], ask: Ask = Asked
    ) -> None:
        """`legal`: the map of who may call; `numbers`: of the locked functions; `through`: see `Derived`."""
        self._legal, self._numbers, self._through, self._ask = legal, numbers, through, ask
        self._known: dict[tuple[bytes, int], _Known] = {}
        self._asked: Asked | None = None
        self._of: dict[str, tuple[bytes, int]] = {}

    def look(self, modules: Iterable[LoadedModule]) -> None:
        """Take back what is legal of those that are gone, and have those read that came."""
        there = {(each.raw, each.address): each.name for each in modules if each.state == "Live"}
        for gone in self._known.keys() - there.keys():
            for place in self._known.pop(gone).legal:
                self._legal.remove(place.encode())
        new = {name: module for module, name in there.items() if module not in self._known}
        if new and self._asked is None and self._through:
            self._of = new
            try:
                self._asked = self._ask(_OPERATION, _PROGRAM, {"modules": [*new], "through": self._through})
            except KernelError as error:
                _log.error("plugin cfi: %s", error)

    def poll(self) -> None:
        """Take what was read, if it was."""
        if self._asked is None:
            return
        try:
            if (answer := self._asked.answer()) is None:
                return
        except KernelError as error:
            _log.error("plugin cfi: %s; calls from modules are told", error)
            answer = {name: {"problem": str(error)} for name in self._of}
        self._asked = None
        for name, module in self._of.items():
            self._known[module] = known = self._taken(name, answer[name])
            for place in known.legal:
                self._legal.set(place.encode(), PRESENT)

    def _taken(self, name: str, found: Mapping[str, Any]) -> _Known:
        if problem := found.get("problem"):
            _log.info("plugin cfi knows nothing of what module %s calls, and tells it: %s", name, problem)
            return _Known(name, (), (), ())
        legal = [
            Place(address, self._numbers[function])
            for function, addresses in found["legal"].items()
            for address in addresses
        ]
        return _Known(name, [range(start, start + size) for start, size in found["code"]], legal, found["open"])

    def file(self, address: int, module: str, function: str) -> str:
        """READ, if the code there is a module's whose file says that it does not call this function there; WITHOUT, if
        a module of this name has no file; else UNREAD."""
        for known in self._known.values():
            if any(address in each for each in known.code):
                return UNREAD if function in known.open else READ
            if not known.code and known.name == module:
                return WITHOUT
        return UNREAD

    def stop(self) -> None:
        """Wait for nothing any more."""
        if self._asked is not None:
            self._asked.stop()
