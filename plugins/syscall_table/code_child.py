"""The process that compares the kernel's code and read-only data, so that the agent need not wait for it.

It takes a program that reads the kernel's memory, and a file for the reference, from the agent; then it looks whenever
it is asked to, and reports. It belongs to the agent and ends with it.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from krie import KernelError, KernelMemory, Link, Symbols, memory_of

from .areas import Stored, areas_of, functions_within, store, trapped, without_tracers
from .comparison import Area, Comparison, Wrong
from .explain import MODULES_RANGE, Code, Lists, brief_lists, read_lists, read_tables, target
from .kallsyms import KALLSYMS, addresses_in
from .runs import Ranges

NAME = "krie-code"
_NICE = 10
_PAGE = 4096
_MOST = 64
"""Differences that are told one by one."""
_SHOWN = 16
_CALL, _JUMP = 0xE8, 0xE9
_SETTLES_S = 0.2
_MODULES = Path("/proc/modules")
_NO_KPROBES, _NO_HANDLED = "the list of kprobes (debugfs)", "ftrace's list of functions (tracefs)"
"""Then a breakpoint anywhere passes for a kprobe, and any function for one that ftrace handles."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Bytes that differ without a legal cause, with names."""

    section: str
    address: int
    length: int
    was: bytes
    now: bytes
    digest: bytes
    """Of all bytes there now."""
    place: str
    module: str
    """Whose code it is; empty for the kernel's own."""
    target: int
    target_symbol: str
    owner: str


@dataclass(frozen=True, slots=True)
class Report:
    """One look."""

    compared: int
    differences: tuple[Difference, ...] = ()
    others: int = 0
    """Further ones that are not told."""
    unknown: tuple[str, ...] = ()
    """What could not be looked at."""


@dataclass(frozen=True, slots=True)
class _Module:
    name: str
    start: int
    size: int
    identity: int
    """Of its folder below /sys/module, which another load of it makes anew."""


def serve(link: Link) -> None:
    """Until the agent has gone."""
    os.nice(_NICE)
    _, descriptors, _, _ = socket.recv_fds(link.socket, 1, 3)
    program, window, file = descriptors
    stored: Stored | None = link.receive()
    try:
        memory, _ = memory_of(program, window)
        kallsyms, symbols = KALLSYMS.read_bytes(), Symbols()
        if stored is None:
            stored = store(file, memory, kallsyms, symbols, addresses_in(kallsyms), os.uname().release)
            link.send(stored)
        take = _Looks(memory, stored, file, kallsyms, symbols).take
        del kallsyms, symbols
    except (KernelError, OSError) as error:  # as under lockdown=confidentiality: that does not change
        take = partial(Report, 0, unknown=(f"code: {error}",))
    while True:
        link.send(take())
        link.receive()


class _Looks:
    """Takes looks at the kernel, and at modules from the first look after each was loaded."""

    def __init__(self, memory: KernelMemory, stored: Stored, file: int, kallsyms: bytes, symbols: Symbols) -> None:
        self._memory, self._unknown = memory, stored.unknown
        areas, locks = areas_of(stored, file)
        address = addresses_in(kallsyms)
        self._text = range(address("_stext"), address("_etext"))
        self._symbols = symbols
        tables = read_tables(memory, address, kallsyms)
        code = Code(self._text, _nothing, _nothing, self._symbols, tables, (), locks=locks.end)
        self._code, self._kernel = code, areas
        self._modules: dict[_Module, Area | None] = {}
        self._comparison = Comparison(memory, areas, code, self._lists, self._brief_lists)
        self._no_kprobes = b" register_kprobe\n" not in kallsyms
        self._no_ftrace = b" ftrace_caller\n" not in kallsyms

    def take(self) -> Report:
        """One look."""
        before = self._comparison.compared
        try:
            self._look_for_modules()
            wrong = self._comparison.look()
        except KernelError as error:
            return Report(0, unknown=(*self._unknown, f"code: {error}"))
        now = set(_modules())
        gone = [area for module, area in self._modules.items() if module not in now and area is not None]
        real = [each for each in wrong if not any(_inside(each, area) for area in gone)]
        told = tuple(self._named(each) for each in real[:_MOST])
        return Report(self._comparison.compared - before, told, len(real) - len(told), self._limits())

    def _limits(self) -> tuple[str, ...]:
        lists = self._brief_lists(())
        without = sorted(module.name for module, area in self._modules.items() if area is None)
        return (
            *self._unknown,
            *((_NO_KPROBES,) if lists.kprobes is None else ()),
            *((_NO_HANDLED,) if lists.handled is None else ()),
            *((f"code of modules {', '.join(without)}",) if without else ()),
        )

    def _look_for_modules(self) -> None:
        """Take a new module's code as it is, once it is loaded and its init code has gone."""
        present = set(_modules())
        if present == self._modules.keys():
            return
        extents = dict(_extents(present))
        new = [each for each in present if each not in self._modules]
        if new:
            time.sleep(_SETTLES_S)
            again = dict(_extents(present))
            extents = {each: extent for each, extent in again.items() if extents.get(each) == extent}
        lists, kallsyms = self._lists(), KALLSYMS.read_bytes()
        self._symbols = Symbols()
        for gone in self._modules.keys() - present:
            del self._modules[gone]
        for each in new:
            if each in extents:
                self._modules[each] = self._new_area(each, extents[each], lists, kallsyms)
        areas = [each for each in self._modules.values() if each is not None]
        self._comparison.areas = [*self._kernel, *areas]
        self._comparison.renew(self._symbols)

    def _new_area(self, module: _Module, extent: range, lists: Lists, kallsyms: bytes) -> Area | None:
        try:
            content = bytearray(self._memory.read(extent.start, len(extent)))
        except KernelError:
            return None
        code = Code(self._text, _nothing, _nothing, self._symbols, self._code.tables, (lists,))
        begins = (begin for begin, name in functions_within(kallsyms, module.name.encode()) if _is_handled(name, lists))
        without_tracers(content, extent.start, begins, code)
        traps = trapped(content, extent.start, lists, Ranges([(extent.start, len(extent))]))
        return Area("module", extent.start, bytes(content), near=True, traps=traps)

    def _lists(self) -> Lists:
        return self._known(read_lists(KALLSYMS.read_bytes()))

    def _brief_lists(self, generated: tuple[tuple[int, str], ...]) -> Lists:
        return self._known(brief_lists(generated))

    def _known(self, lists: Lists) -> Lists:
        """What this kernel is built without has an empty list."""
        nothing: frozenset[Any] = frozenset()
        return replace(
            lists,
            kprobes=nothing if self._no_kprobes else lists.kprobes,
            handled=nothing if self._no_ftrace else lists.handled,
        )

    def _named(self, wrong: Wrong) -> Difference:
        found = self._symbols.find(wrong.address)
        to = self._target(wrong)
        leads_to = self._symbols.find(to) if to else None
        return Difference(
            wrong.section,
            wrong.address,
            len(wrong.now),
            wrong.was[:_SHOWN],
            wrong.now[:_SHOWN],
            hashlib.blake2b(wrong.now, digest_size=16).digest(),
            str(found or f"{wrong.address:#x}"),
            found.module if found is not None else "",
            to,
            str(leads_to or ""),
            self._owner(to) if to else "",
        )

    def _target(self, wrong: Wrong) -> int:
        """Where a jump or call leads that lies there, or of which these bytes are part; 0 where none does."""
        if wrong.section == "rodata":
            return 0
        for site in range(wrong.address, wrong.address - 5, -1):
            try:
                code = self._memory.read(site, 5)
            except KernelError:
                return 0
            if code[0] not in (_CALL, _JUMP) or site + 5 < wrong.address + min(len(wrong.now), 4):
                continue
            to = target(code, site)
            if to in self._text or to in MODULES_RANGE:
                return to
        return 0

    def _owner(self, address: int) -> str:
        if address in self._text:
            return "kernel"
        for each in self._modules:
            if each.start <= address < each.start + each.size:
                return each.name
        found = self._symbols.find(address)
        return (found.module if found is not None else "") or "?"


def _nothing(_address: int, _size: int) -> bytes:
    return b""


def _is_handled(name: str, lists: Lists) -> bool:
    return lists.handled is None or name in lists.handled


def _inside(wrong: Wrong, area: Area) -> bool:
    return area.start <= wrong.address < area.start + len(area.content)


def _modules() -> Iterator[_Module]:
    """Those that are loaded, and not on their way in or out."""
    if not _MODULES.exists():  # this kernel has none
        return
    for line in _MODULES.read_text().splitlines():
        name, size, _, _, state, start = line.split()[:6]
        try:
            identity = os.stat(f"/sys/module/{name}").st_ino
        except OSError:
            continue
        if state == "Live":
            yield _Module(name, int(start, 16), int(size), identity)


def _extents(modules: Iterable[_Module]) -> Iterator[tuple[_Module, range]]:
    """Where each one's code lies, by its functions: whole pages, since nothing but code is in them."""
    kallsyms = KALLSYMS.read_bytes()
    for each in modules:
        inside = range(each.start, each.start + each.size)
        functions = [begin for begin, _ in functions_within(kallsyms, each.name.encode()) if begin in inside]
        if functions:
            first, last = min(functions) // _PAGE * _PAGE, max(functions) // _PAGE * _PAGE + _PAGE
            yield each, range(first, last)
