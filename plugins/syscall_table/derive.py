"""Derives the places of a system call from the running kernel: its memory and its symbols, and nothing else."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, Mapping

from krie import KernelError, KernelMemory

from . import gates
from .begins import SITE_BYTES, first_place, jumps_away, site_in
from .derived import Derived, Missing
from .events import ENTRY, HANDLER, IA32, TABLE, X32, X64
from .kallsyms import Kallsyms
from .modules import ranges
from .numbers import handlers_by_number, numbers_by_handler
from .patched import SYMBOLS as PATCHED_SYMBOLS
from .patched import PatchedCode
from .pieces import Piece, Site, cut
from .pointers import CONSTANT, MOST_BYTES, Pointers
from .slots import Slots, read_slots
from .switch import Switch, read_switch

_TABLES = {X64: "sys_call_table", IA32: "ia32_sys_call_table", X32: "x32_sys_call_table"}
_SWITCHES = {X64: "x64_sys_call", IA32: "ia32_sys_call", X32: "x32_sys_call"}
_ENTRIES = (
    "do_syscall_64",
    "do_int80_emulation",
    "do_int80_syscall_32",
    "__do_fast_syscall_32",
    "do_fast_syscall_32",
    "do_SYSENTER_32",
)
_ASSEMBLY = ("__entry_text_start", "__entry_text_end")
_TEXT = ("_stext", "_etext")
_IDT, _IDT_BYTES = "idt_table", 4096
SYMBOLS = (*_TABLES.values(), *_SWITCHES.values(), *_ENTRIES, *_ASSEMBLY, *_TEXT, _IDT, *PATCHED_SYMBOLS, *CONSTANT)
"""Symbols that this module asks for, beside the configured pointers."""

_HANDLER_BYTES = 32
_FEWER_BYTES = 16
"""Of a handler whose own patched places are not known: behind them may be one."""
_SLOT = 8


class Derivation:
    """Goes through the kernel once."""

    def __init__(
        self, symbols: Kallsyms, memory: KernelMemory, modules: Callable[[], Collection[range]] = ranges
    ) -> None:
        """Derive nothing yet. `modules`: where those lie that are listed."""
        self._symbols, self._memory = symbols, memory
        self._handlers = symbols.handlers()
        self._patched = PatchedCode(symbols, memory)
        self._slots: dict[int, Slots] = {}
        """By ABI, of each table that could be read."""
        self._reached: dict[int, dict[int, int]] = {}
        """By ABI the handlers that are really reached, with their numbers."""
        self.made = Derived(
            names={address: _best(names) for address, names in self._handlers.items()},
            text=range(symbols.address(_TEXT[0]), symbols.address(_TEXT[1])),
        )
        self._variables = Pointers(symbols, self.made.text, modules())

    def run(self, pointers: Collection[str]) -> Derived:
        """Everything; `pointers`: names of variables. What cannot be read is among the unknown."""
        if not self.made.text:
            self.made.unknown.append("symbols (kernel.kptr_restrict hides them)")
            return self.made
        for abi, name in _TABLES.items():
            switched = bool(self._symbols.address(_SWITCHES[abi]))  # kernels drop tables that nothing reads any more
            needless = abi == X32 or (abi == IA32 and switched)
            self._try(name, lambda abi=abi, name=name: self._table(abi, name), optional=needless)
        for abi, name in _SWITCHES.items():
            self._try(name, lambda abi=abi, name=name: self._switch(abi, name), optional=True)
        if not any(map(self._symbols.address, (*_TABLES.values(), *_SWITCHES.values()))):
            self.made.unknown.append("which handlers there are")
        self._all_handlers()
        self._entries()
        self._try(_IDT, self._idt)
        for name in pointers:
            self._try(name, lambda name=name: self._pointers(name), optional=True)
        return self.made

    def _try(self, name: str, derive: object, *, optional: bool = False) -> None:
        assert callable(derive)
        if not self._symbols.address(name):
            if not optional:
                self.made.unknown.append(name)
            return
        try:
            derive()
        except KernelError as error:
            self.made.unknown.append(f"{name} ({error})")

    def _table(self, abi: int, name: str) -> None:
        extent = self._symbols.extent(name)
        values = struct.unpack(
            f"={len(extent) // _SLOT}Q", self._memory.read(extent.start, len(extent) // _SLOT * _SLOT)
        )
        slots = read_slots(extent.start, values, self._handlers, handlers_by_number(self._handlers, abi))
        self._slots[abi] = slots
        self.made.slots |= {extent.start + _SLOT * number: values[number] for number in slots.wrong}
        reached = self._reached.setdefault(abi, {})
        for number, handler in enumerate(slots.expected):
            if handler in self._handlers:
                reached.setdefault(handler, number)
        self.made.pieces += slots.pieces(abi, name)

    def _switch(self, abi: int, name: str) -> None:
        extent = self._symbols.extent(name)
        code = self._memory.read(extent.start, len(extent))
        switch = read_switch(extent.start, code, self._handlers, self.made.text)
        by_table = self._reached.get(abi, {})
        numbers = {**numbers_by_handler(self._handlers, abi), **by_table}
        missing = self._missing(abi, extent.start, switch, numbers)
        strange = switch.strange if missing else ()
        # Names alone do not tell which handlers there must be.
        without_jump = [] if strange else [each for each in missing if each.handler in by_table]
        self.made.missing += without_jump or self._without_slot(abi, switch)
        self.made.dispatchers.append(extent)
        reached = self._reached.setdefault(abi, {})
        for jump in switch.jumps:
            reached.setdefault(jump.target, numbers.get(jump.target, -1))
        reached.update({each.handler: each.number for each in missing})  # which was reached before, as it seems
        jumps = sorted((*switch.jumps, *strange), key=lambda each: each.address)
        whole = [range(each.address, each.address + each.length) for each in jumps]
        alone = missing[0].number if len(missing) == 1 == len(strange) else -1
        for part in cut(extent, whole):
            sites = tuple(
                Site(each.address - part.start, each.length, numbers.get(each.target, alone if each in strange else -1))
                for each in jumps
                if each.address in part
            )
            wrong = {(each.address - part.start) // _SLOT for each in strange if each.address in part}
            taken = tuple(
                range(each.address - part.start, each.address - part.start + each.length)
                for each in strange
                if each.address in part
            )
            content = code[part.start - extent.start : part.stop - extent.start]
            self.made.pieces.append(
                Piece(
                    ENTRY,
                    part.start,
                    content,
                    abi=abi,
                    ignored=self._changing(part, content, begins=part.start == extent.start),
                    sites=sites,
                    wrong=tuple(sorted(wrong)),
                    taken=taken,
                    name=name,
                    offset=part.start - extent.start,
                )
            )

    def _missing(self, abi: int, function: int, switch: Switch, numbers: Mapping[int, int]) -> list[Missing]:
        """Handlers that the function should lead to, and does not. Those that do nothing have no jump of their own."""
        led_to = {each.target for each in switch.jumps}
        served = {numbers.get(each) for each in led_to}  # several functions may bear the name of one system call
        return [
            Missing(abi, number, handler, function)
            for handler, number in numbers.items()
            if handler not in led_to and number not in served and not _does_nothing(self._handlers[handler])
        ]

    def _without_slot(self, abi: int, switch: Switch) -> list[Missing]:
        """Handlers that the function leads to and no slot of the table: one of its slots leads to another handler."""
        slots = self._slots.get(abi)
        if slots is None or not slots.expected or any(slots.expected[each] for each in slots.unknown):  # told by a look
            return []
        return [
            Missing(abi, -1, each, slots.start, TABLE)
            for each in sorted({jump.target for jump in switch.jumps}.difference(slots.expected))
            if not _does_nothing(self._handlers[each]) and not all(map(_is_body, self._handlers[each]))
        ]

    def _all_handlers(self) -> None:
        seen: set[int] = set()
        pieces: list[Piece] = []
        for abi, reached in self._reached.items():
            for handler, number in reached.items():
                if handler not in seen:
                    seen.add(handler)
                    self._try_handler(abi, handler, number, pieces)
        sited = sum(each.ftrace is not None for each in pieces)
        for each in pieces:
            # Where nearly all begin with ftrace's place, one that begins with a jump was taken. Others have none,
            # such as the function that answers for system calls that are not there.
            strange = each.ftrace is None and 10 * sited > 9 * len(pieces) and jumps_away(each.expected)
            self.made.pieces.append(_suspect(each) if strange else each)

    def _try_handler(self, abi: int, handler: int, number: int, pieces: list[Piece]) -> None:
        name = self.made.names[handler]
        size = _HANDLER_BYTES if self._patched.known else _FEWER_BYTES
        # Behind a short one lies the next, with a place of ftrace's of its own.
        size = min(size, len(self._symbols.handler(handler)) or size)
        try:
            content = self._memory.read(handler, size)
        except KernelError as error:
            self.made.unknown.append(f"{name} ({error})")
            return
        ignored = self._patched.within(range(handler, handler + size))
        site = site_in(content)
        pieces.append(Piece(HANDLER, handler, content, abi=abi, number=number, ignored=ignored, ftrace=site, name=name))

    def _entries(self) -> None:
        extents = {name: self._symbols.extent(name) for name in _ENTRIES if self._symbols.address(name)}
        self.made.dispatchers += extents.values()
        begin, end = map(self._symbols.address, _ASSEMBLY)
        if begin and end:
            extents[_ASSEMBLY[0]] = range(begin, end)
            self.made.dispatchers.append(range(begin, end))
        for name, extent in extents.items():
            if not self._patched.known and name in _ENTRIES:
                self.made.unknown.append(f"code of {name} (no __start___jump_table)")
                continue
            self._try(name, lambda name=name, extent=extent: self._entry(name, extent))

    def _entry(self, name: str, extent: range) -> None:
        code = self._memory.read(extent.start, len(extent))
        for part in cut(extent):
            content = code[part.start - extent.start : part.stop - extent.start]
            ignored = self._changing(part, content, begins=part.start == extent.start)
            offset = part.start - extent.start
            self.made.pieces.append(Piece(ENTRY, part.start, content, ignored=ignored, name=name, offset=offset))

    def _changing(self, part: range, content: bytes, *, begins: bool) -> tuple[range, ...]:
        site = site_in(content) if begins else None
        return (*self._patched.within(part), *(() if site is None else (range(site, site + SITE_BYTES),)))

    def _idt(self) -> None:
        start = self._symbols.address(_IDT)
        content = self._memory.read(start, _IDT_BYTES)
        self.made.pieces += gates.pieces(start, content, _IDT)

    def _pointers(self, name: str) -> None:
        extent = self._symbols.extent(name)
        size = min(len(extent), MOST_BYTES) // _SLOT * _SLOT
        content = self._memory.read(extent.start, size)
        self.made.pieces += self._variables.pieces(name, extent.start, content)


def _suspect(piece: Piece) -> Piece:
    start = first_place(piece.expected)
    return Piece(
        piece.where,
        piece.address,
        piece.expected,
        abi=piece.abi,
        number=piece.number,
        ignored=piece.ignored,
        wrong=tuple(sorted({start // _SLOT, (start + SITE_BYTES - 1) // _SLOT})),
        name=piece.name,
    )


def _best(names: Collection[str]) -> str:
    """Of several names of one address the one that says most: several system calls may be one function."""
    return min(names, key=lambda each: (_does_nothing((each,)), each))


def _does_nothing(names: Collection[str]) -> bool:
    return any("ni_syscall" in each for each in names)


def _is_body(name: str) -> bool:
    """Whether this is what handlers call: a compiler may lead there at once."""
    return name.startswith("__do_")


def dispatch_jumps(pieces: Collection[Piece]) -> Iterator[tuple[Piece, Site]]:
    """All jumps to handlers."""
    for piece in pieces:
        yield from ((piece, site) for site in piece.sites)
