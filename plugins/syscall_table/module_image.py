"""What a module's code and read-only data are once the kernel has loaded it, by its file.

The kernel puts each section somewhere, writes the addresses that its relocations ask for, and patches the places that
its tables name. Of the latter the file does not tell what stands there: that is taken from memory, as it is for what
the kernel patches in itself while it boots.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from krie import ModuleFile, ModuleSection, Relocation

from .explain import NOPS, target
from .image import NOP5, RUNTIME, SITES
from .reference import Part
from .runs import Ranges
from .tables import Tables

_SIZES = {1: 8, 2: 4, 4: 4, 10: 4, 11: 4, 24: 8}
"""Bytes that a relocation writes: R_X86_64_64, _PC32, _PLT32, _32, _32S and _PC64."""
_RELATIVE = frozenset({2, 4, 24})
_ABSOLUTE_SECTION, _UNDEFINED = 0xFFF1, 0
_INIT = ".init"
_GONE = (_INIT, ".data..percpu")
"""Begins of the names of sections that are freed when the module is loaded, or copied for each CPU."""
_RODATA = ".rodata"
_ALTERNATIVES, _PARAVIRT, _CALLS, _FENTRIES = ".altinstructions", ".parainstructions", ".call_sites", "__mcount_loc"
_PATCHED = {name: place for name, place in SITES.items() if name != _CALLS}
_LENGTH_IN_ALTERNATIVE = {12: 10, 13: 10, 14: 12}
"""Where struct alt_instr has the length of what it replaces, by its size: as 6.1, 5.10 and 6.12 have it."""
_PADDING = 32
"""Bytes before a function to which calls may lead that count how deep they are (call depth tracking)."""
_CALL = 0xE8
_TRAMPOLINE = "__SCT__"
_LABELS, _STATIC_CALLS = "__jump_table", ".static_call_sites"
_TABLES = (*_PATCHED, *RUNTIME, _ALTERNATIVES, _PARAVIRT, _CALLS, _FENTRIES, _LABELS, _STATIC_CALLS)
"""Begins of the names of sections whose relocations lead to what is patched."""
Resolve = Callable[[str], Collection[int]]
"""Addresses that a symbol of the kernel or of another module may have; none where it is not known."""
Read = Callable[[int, int], bytes]
"""The memory of the kernel: address, size. Raises `KernelError`."""


@dataclass(frozen=True, slots=True)
class ModuleImage:
    """One module's code and read-only data."""

    parts: tuple[Part, ...]
    """The code, as `module`, and `rodata`."""
    tables: Tables
    """Where the kernel patches it while it runs."""
    locks: Ranges
    """See `Code.locks`."""
    taken: Ranges
    """What was taken from memory, since the file does not tell it."""
    init: tuple[tuple[int, int], ...]
    """Address and length of code that is freed once it has run: the kernel may list its functions for a moment more."""

    def has(self, functions: Iterable[int]) -> bool:
        """Whether all of them lie in its code, as where the kernel's symbols and sections tell the same of it."""
        parts = ((part.start, len(part.content)) for part in self.parts if part.section == "module")
        return all(map(Ranges((*parts, *self.init)).end, functions))

    def over(self, content: bytearray, start: int) -> None:
        """Put it over what was read at this address."""
        for part in self.parts:
            first, last = max(start, part.start), min(start + len(content), part.start + len(part.content))
            if first < last:
                content[first - start : last - start] = part.content[first - part.start : last - part.start]


def image_of(file: ModuleFile, starts: Mapping[str, int], resolve: Resolve, read: Read) -> ModuleImage:
    """The image of a module that is loaded; `starts`: where its sections lie. Raises `ValueError`, `KernelError`."""
    try:
        return _Image(file, starts, resolve, read).made()
    except (IndexError, struct.error) as error:
        raise ValueError(f"it is not a module: {error}") from error


class _Image:
    def __init__(self, file: ModuleFile, starts: Mapping[str, int], resolve: Resolve, read: Read) -> None:
        self._file, self._resolve = file, resolve
        self._starts = {each.index: starts.get(each.name, 0) for each in file.sections if each.is_allocated}
        kept = [each for each in file.sections if _is_kept(each) and self._starts[each.index] and each.length]
        self._now = {each.index: read(self._starts[each.index], each.length) for each in kept}
        self._content = {each.index: bytearray(file.content(each)) for each in kept}
        self._targets: dict[str, dict[int, int]] = {}
        """By the name of a section, and the offset in it, the address that a relocation there writes, or leads to."""
        self._taken: list[tuple[int, int]] = []

    def made(self) -> ModuleImage:
        for section, relocations in self._file.relocations():
            content = self._content.get(section.index)
            if content is None and section.name.startswith(_TABLES):
                found = {each.offset: self._defined(each.symbol) + each.addend for each in relocations}
                self._targets.setdefault(section.name, {}).update(found)
            for each in relocations if content is not None else ():
                self._relocate(section.index, each)
        for site in self._targets.get(_FENTRIES, {}).values():
            self._put_nop(site)
        for site, size in self._patched():
            self._take(site, size)
        for site in self._targets.get(_CALLS, {}).values():
            self._take_call(site)
        parts = [
            Part("module" if self._file.sections[index].is_code else "rodata", self._starts[index], bytes(content))
            for index, content in self._content.items()
        ]
        locks = Ranges((site, 1) for site in self._targets.get(".smp_locks", {}).values())
        init = [each for each in self._file.sections if each.is_code and each.name.startswith(_INIT)]
        freed = tuple((self._starts[each.index], each.length) for each in init if self._starts[each.index])
        return ModuleImage(tuple(parts), self._tables(), locks, Ranges(self._taken), freed)

    def _tables(self) -> Tables:
        jumps = self._targets.get(_LABELS, {})
        labels = {site: jumps[place + 4] for place, site in jumps.items() if place % 16 == 0 and place + 4 in jumps}
        calls = {site for place, site in self._targets.get(_STATIC_CALLS, {}).items() if place % 8 == 0}
        for each in self._file.symbols:
            if self._starts.get(each.section) and each.name.startswith(_TRAMPOLINE):
                calls.add(self._starts[each.section] + each.value)
        return Tables(labels, frozenset(calls))

    def _patched(self) -> Iterator[tuple[int, int]]:
        """What the kernel patches when it loads the module: address and length."""
        patched = _PATCHED | {
            name: (0, size) for name in self._targets for begin, size in RUNTIME.items() if name.startswith(begin)
        }
        for name, (shift, length) in patched.items():
            yield from ((site + shift, length) for site in self._targets.get(name, {}).values())
        yield from self._lengths(_ALTERNATIVES)
        yield from self._lengths(_PARAVIRT)

    def _lengths(self, name: str) -> Iterator[tuple[int, int]]:
        """Of tables whose entries tell a length."""
        sites = self._targets.get(name)
        if not sites:
            return
        (content,) = (self._file.content(each) for each in self._file.sections if each.name == name)
        places = sorted(sites)
        if name == _PARAVIRT:
            yield from ((sites[place], content[place + 9]) for place in places)
            return
        size = places[2] - places[0] if len(places) > 2 else len(content)
        length = _LENGTH_IN_ALTERNATIVE.get(size)
        if length is None:
            raise ValueError("its table of alternative instructions has a form that KRIe does not know")
        yield from ((sites[place], content[place + length]) for place in places if place % size == 0)

    def _defined(self, symbol: int) -> int:
        """A symbol's address; 0 where that is not known."""
        each = self._file.symbols[symbol]
        if each.section == _ABSOLUTE_SECTION:
            return each.value
        start = self._starts.get(each.section, 0)
        return start + each.value if start else 0

    def _relocate(self, section: int, relocation: Relocation) -> None:
        if (size := _SIZES.get(relocation.kind)) is None:
            if relocation.kind:
                raise ValueError(f"it is not a module: a relocation of kind {relocation.kind}")
            return
        first, last = relocation.offset, relocation.offset + size
        if last > len(self._now[section]):
            raise ValueError("it is not a module: a relocation behind its section")
        symbol = self._file.symbols[relocation.symbol]
        defined = [self._defined(relocation.symbol)] if symbol.section != _UNDEFINED else self._resolve(symbol.name)
        addend = relocation.addend
        if relocation.kind in _RELATIVE:
            addend -= self._starts[section] + first
        now = self._now[section][first:last]
        written = [_bytes(address + addend, size) for address in defined if address]
        if not written:
            self._taken.append((self._starts[section] + first, size))
        self._content[section][first:last] = now if now in written or not written else written[0]

    def _put_nop(self, site: int) -> None:
        """In place of a call of ftrace."""
        for index, made in self._content.items():
            offset = site - self._starts[index]
            if 0 <= offset <= len(made) - len(NOP5):
                now = self._now[index][offset : offset + len(NOP5)]
                made[offset : offset + len(NOP5)] = now if now in NOPS else NOP5

    def _take(self, address: int, size: int) -> None:
        """Believe what stands there."""
        for index, made in self._content.items():
            first = max(0, address - self._starts[index])
            last = min(len(made), address + size - self._starts[index])
            if first < last:
                made[first:last] = self._now[index][first:last]
                self._taken.append((self._starts[index] + first, last - first))

    def _take_call(self, site: int) -> None:
        """A call may lead to the padding before its function, where that counts how deep calls are."""
        for index, made in self._content.items():
            offset = site - self._starts[index]
            if not 0 <= offset <= len(made) - 5:
                continue
            before, now = bytes(made[offset : offset + 5]), self._now[index][offset : offset + 5]
            if before[0] == now[0] == _CALL and 0 < target(before, site) - target(now, site) <= _PADDING:
                made[offset : offset + 5] = now


def _bytes(value: int, size: int) -> bytes:
    return (value & (1 << 8 * size) - 1).to_bytes(size, "little")


def _is_kept(section: ModuleSection) -> bool:
    return (section.is_code or section.name == _RODATA) and not section.name.startswith(_GONE)
