"""Whose code an address of the kernel is: the kernel's own, a module's, or nobody's that is known."""

from __future__ import annotations

import time
from bisect import bisect_right
from functools import lru_cache

from krie import AnyFile, KernelFile, loaded_modules

KERNEL, NOBODY, UNKNOWN = "kernel", "?", ""
_MODULES, _SYMBOLS = KernelFile("/proc/modules"), KernelFile("/proc/kallsyms")
_MODULES_MAY_BEGIN = 0xFFFF_FFFF_C000_0000
"""x86-64: where modules lie unless the kernel says otherwise; all code below is its own."""
_FRESH_S = 1.0


class ModuleRanges:
    """Where modules lie.

    What events tell comes first: a module may be gone by the time that its deeds are looked at. For modules that no
    event told, /proc/modules is read when an address is in none, at most once a second.
    """

    def __init__(self, modules: AnyFile = _MODULES) -> None:
        """`modules`: as /proc/modules."""
        self._file = modules
        self._read_at = -_FRESH_S
        self._told: dict[str, tuple[int, int, str]] = {}
        self._listed: list[tuple[int, int, str]] = []
        self._ranges: list[tuple[int, int, str]] = []
        self._starts: list[int] = []
        self.hidden = False
        """The kernel tells no addresses: kernel.kptr_restrict is 2."""

    def find(self, address: int) -> str | None:
        """The module with this address; None where none has it."""
        if (name := self._known(address)) is None and time.monotonic() - self._read_at >= _FRESH_S:
            self._read()
            name = self._known(address)
        return name

    def owner_of(self, address: int) -> str:
        """`kernel`, a module's name, `?` for code of neither; empty where the kernel tells no addresses."""
        if (name := self.find(address)) is not None:
            return name
        if address < _end_of_kernel():
            return KERNEL
        return UNKNOWN if self.hidden else NOBODY

    def linked(self, name: str, address: int, size: int) -> None:
        """A module came, with its code at this address; 0 where that is not known."""
        if address:
            self._forget(address, address + size)
            self._told[name] = (address, size, name)
        self._stale()

    def freed(self, name: str) -> None:
        """A module went: its place may be another's."""
        self._told.pop(name, None)
        self._stale()

    def _forget(self, begin: int, end: int, but: str = "") -> None:
        """Whose place another module has taken is gone, also where its end was not told: the record was lost."""
        gone = [name for name, (start, size, _) in self._told.items() if start < end and begin < start + size]
        for name in gone:
            if name != but:
                del self._told[name]

    def _stale(self) -> None:
        self._read_at = -_FRESH_S
        self._listed = []
        self._arrange()

    def _arrange(self) -> None:
        self._ranges = sorted([*self._told.values(), *(each for each in self._listed if each[2] not in self._told)])
        self._starts = [start for start, _, _ in self._ranges]

    def _known(self, address: int) -> str | None:
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        start, size, name = self._ranges[index]
        return name if address < start + size else None

    def _read(self) -> None:
        found = sorted((each.address, each.size, each.name) for each in loaded_modules(self._file))
        self.hidden = bool(found) and found[-1][0] == 0
        self._listed = [] if self.hidden else found
        for start, size, name in self._listed:
            self._forget(start, start + size, but=name)
        self._arrange()
        self._read_at = time.monotonic()


@lru_cache(maxsize=1)
def _end_of_kernel() -> int:
    """Where the kernel's own code ends, as its symbols say; they are listed by address."""
    with _SYMBOLS.open() as lines:
        for line in lines:
            address, _, name = line.split()[:3]
            if name == b"_etext" and (end := int(address, 16)):
                return end
    return _MODULES_MAY_BEGIN
