"""The process that compares the kernel's code and read-only data, so that the agent need not wait for it.

It takes a program that reads the kernel's memory, and a file for the reference, from the agent; then it looks whenever
it is asked to, and reports. It belongs to the agent and ends with it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from krie import (
    BpfFunction,
    KernelError,
    KernelMemory,
    Link,
    Symbols,
    bpf_functions,
    kallsyms_text,
    memory_of,
)

from .areas import Stored, areas_of, module_functions, store
from .comparison import Area, CodeComparison
from .entered import NOBODY, Change, Entered
from .entry import Entry
from .explain import Code, Lists, brief_lists, read_lists
from .formats import HEAD
from .kallsyms import CODE, KALLSYMS, addresses_in, all_addresses_in
from .lists import LASTING, SYMBOLS, FunctionLists, offsets
from .module_areas import LOAD, code_area, data_areas
from .module_reference import images_of
from .modules import Module, extents_of, loaded, ranges
from .names import LIST, Difference, Names
from .tables import read_tables

NAME = "krie-code"
SECRET_BYTES = 8
"""What the agent sends first, with the descriptors: the secret of the program that reads."""
_NICE = 10
_MOST = 64
"""Differences that are told one by one."""
_SETTLES_S = 0.2
_NO_KPROBES, _NO_HANDLED = "the list of kprobes (debugfs)", "ftrace's list of functions (tracefs)"
"""Then a breakpoint anywhere passes for a kprobe, and any function for one that ftrace handles."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one look found."""

    compared: int
    differences: tuple[Difference, ...] = ()
    others: int = 0
    """Further ones that are not told."""
    unknown: tuple[str, ...] = ()
    """What could not be looked at."""
    areas: tuple[tuple[int, int], ...] = ()
    """Address and bytes of each one that was compared, and is still there."""
    changes: tuple[Change, ...] = ()
    """Of lists that change seldom."""

    def says_of(self, difference: Difference) -> bool:
        """Whether it is about the place of a difference, which a module or a BPF program may have taken along."""
        place = difference.address
        return difference.section == LIST or any(place in range(start, start + size) for start, size in self.areas)


def serve(link: Link) -> None:
    """Until the agent has gone."""
    os.nice(_NICE)
    secret, descriptors, _, _ = socket.recv_fds(link.socket, SECRET_BYTES, 3)
    program, window, file = descriptors
    stored: Stored | None = link.receive()
    try:
        memory, _ = memory_of(program, window, int.from_bytes(secret, "little"))
        kallsyms, symbols = kallsyms_text(KALLSYMS), Symbols()
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
        address = addresses_in(kallsyms, (*CODE, *SYMBOLS))
        self._text = range(address("_stext"), address("_etext"))
        self._symbols = symbols
        tables = read_tables(memory, address, kallsyms)
        tables = replace(tables, static_calls=tables.static_calls - tables.security)
        code = Code(self._text, _nothing, _nothing, self._symbols, tables, (), locks=locks.end)
        self._code, self._kernel = code, areas
        self._modules: dict[Module, tuple[Area, ...] | None] = {}
        self._without_files: set[Module] = set()
        self._programs: dict[BpfFunction, Area] = {}
        heads = all_addresses_in(kallsyms, (HEAD,)).get(HEAD, set())
        self._functions = FunctionLists(memory, address, offsets(), heads)
        self._entered = Entered()
        self._without: tuple[str, ...] = ()
        self._without_programs = False
        self._comparison = CodeComparison(memory, areas, code, self._lists, self._brief_lists)
        self._no_kprobes = b" register_kprobe\n" not in kallsyms
        self._no_ftrace = b" ftrace_caller\n" not in kallsyms

    def take(self) -> Report:
        """Take one look, and report what it found."""
        before = self._comparison.compared
        try:
            self._look_for_modules()
            self._look_for_programs()
            areas = (area for each in self._modules.values() for area in each or ())
            self._comparison.areas = [*self._kernel, *areas, *self._programs.values()]
            wrong = self._comparison.look()
            strays, lasting, changed = self._walk()
        except KernelError as error:
            return Report(0, unknown=(*self._unknown, f"code: {error}"))
        now, run = set(loaded()), _present()
        gone = [area for module, areas in self._modules.items() if module not in now for area in areas or ()]
        gone += [area for program, area in self._programs.items() if program not in (run or ())]
        real = [each for each in wrong if not any(area.has(each.address) for area in gone)]
        there = tuple((each.start, len(each.content)) for each in self._comparison.areas if each not in gone)
        names = Names(self._memory, self._text, self._symbols, self._modules, self._programs.values())
        found = [*map(names.of_entry, strays), *map(names.of_bytes, real[:_MOST])]
        others = len(strays) + len(real) - len(found[:_MOST])
        changes = self._entered.take(lasting, changed, self._namer(names))
        compared, told = self._comparison.compared - before, tuple(found[:_MOST])
        return Report(compared, told, others, self._limits(), there, tuple(changes))

    def _limits(self) -> tuple[str, ...]:
        lists = self._brief_lists(())
        without = sorted(module.name for module, areas in self._modules.items() if areas is None)
        fileless = sorted(each.name for each in self._without_files if self._modules.get(each))
        return (
            *self._unknown,
            *((_NO_KPROBES,) if lists.kprobes is None else ()),
            *((_NO_HANDLED,) if lists.handled is None else ()),
            *(("code of BPF",) if self._without_programs else ()),
            *((f"functions in lists: {', '.join(self._without)}",) if self._without else ()),
            *((f"code of modules {', '.join(without)}",) if without else ()),
            *((f"code of modules before their first look: {', '.join(fileless)}",) if fileless else ()),
        )

    def _look_for_modules(self) -> None:
        """Take a new module's code as it is, once it is loaded and its init code has gone."""
        present = set(loaded())
        if present == self._modules.keys():
            return
        new = [each for each in present if each not in self._modules]
        kallsyms = kallsyms_text(KALLSYMS)
        functions = module_functions(kallsyms)
        extents = extents_of(new, functions)
        if new:
            time.sleep(_SETTLES_S)
            kallsyms = kallsyms_text(KALLSYMS)
            functions = module_functions(kallsyms)
            extents = {
                each: extent for each, extent in extents_of(new, functions).items() if extents.get(each) == extent
            }
        lists = self._lists()
        self._symbols = Symbols()
        for gone in self._modules.keys() - present:
            del self._modules[gone]
        images = images_of(extents, self._memory, kallsyms, functions)
        self._without_files = self._without_files & present | images.without.keys()
        for each in new:
            if each.name not in functions:
                self._modules[each] = None
            elif each in extents:  # else its init code is about to go
                image = images.made.get(each)
                code = replace(self._code, symbols=self._symbols, lists=(lists,))
                area = code_area(self._memory, extents[each], functions[each.name], code, image)
                self._modules[each] = None if area is None else (area, *data_areas(self._memory, each, image))
        self._comparison.renew(self._symbols)

    def _look_for_programs(self) -> None:
        """Take the code of new BPF programs as it is."""
        present = _present()
        self._without_programs = present is None
        self._programs = {each: area for each, area in self._programs.items() if each in (present or ())}
        for each in present or ():
            if each not in self._programs:
                with suppress(KernelError):  # it has gone
                    content = self._memory.read(each.start, each.size)
                    self._programs[each] = Area(
                        "bpf", each.start, content, f"bpf_prog {each.name}", near=True, reference=LOAD
                    )

    def _lists(self) -> Lists:
        return self._known(read_lists(kallsyms_text(KALLSYMS)))

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

    def _walk(self) -> tuple[list[Entry], Mapping[str, list[Entry]], list[tuple[str, Entry, bool]]]:
        """Functions in the kernel's lists that are nobody's at two looks, since modules come and go; lists that change
        seldom, and changes of these that both looks see: nothing is locked while they are walked."""
        lists, without = self._functions.by_list()
        self._without = tuple(without)
        present = ranges()
        strays = [each for each in _all_of(lists) if not self._has_owner(each.function, present, ())]
        changed = self._entered.changes(_lasting(lists))
        if not strays and not changed:
            return [], _lasting(lists), []
        time.sleep(_SETTLES_S)
        present, generated = ranges(), self._lists()
        again, _ = self._functions.by_list()
        strays = [
            each
            for each in _all_of(again)
            if each in strays and not self._has_owner(each.function, present, (generated,))
        ]
        return strays, _lasting(again), sorted(changed & self._entered.changes(_lasting(again)), key=str)[:_MOST]

    def _namer(self, names: Names) -> Callable[[int], tuple[str, str]]:
        """What tells symbol and owner of a function, as things are now."""
        present, generated = ranges(), cache(self._lists)

        def of_function(function: int) -> tuple[str, str]:
            # Behind the last function of a module that is listed, one of a module may lie that hides.
            owned = self._has_owner(function, present, ()) or self._has_owner(function, present, (generated(),))
            return names.of_function(function) if owned else ("", NOBODY)

        return of_function

    def _has_owner(self, function: int, modules: Iterable[range], lists: tuple[Lists, ...]) -> bool:
        owned = function in self._text or any(function in each for each in modules)
        return owned or any(each.kind(function) for each in lists)


def _all_of(lists: Mapping[str, list[Entry]]) -> list[Entry]:
    return [each for entries in lists.values() for each in entries]


def _lasting(lists: Mapping[str, list[Entry]]) -> dict[str, list[Entry]]:
    return {name: entries for name, entries in lists.items() if name in LASTING}


def _present() -> set[BpfFunction] | None:
    try:
        return set(bpf_functions())
    except KernelError:
        return None


def _nothing(_address: int, _size: int) -> bytes:
    return b""
