"""Who calls a function of the kernel in the file of a module: by the relocations that tell the kernel where to put its
address. What lies in memory is never asked: whoever loads a module has made that.

A call of a function that is elsewhere is an instruction without a target, and a relocation for it. Both are put
together here as the kernel does when it loads the module, at addresses of no matter, and what comes out is searched as
the kernel's own code is (`derivation.py`), tail calls within the module followed.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from krie import ModuleFile, ModuleSection

from .derivation import Code

_ABSOLUTE, _RELATIVE, _CALL = 1, 2, 4  # R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32
_FUNCTION = 2  # STT_FUNC
_BASE, _APART, _STUB = 0x5A5A5A000000, 64, 16
_FILLED = b"\xcc"
"""Where there is nothing, or what is not known: no branch goes from there, nor there."""
_LISTS = ("__mcount_loc", "__patchable_function_entries", ".static_call", "__jump_table", ".discard", ".init", ".exit")
"""Begins of the names of sections with addresses by which nobody calls, and of what is gone, or unused, later."""


@dataclass(frozen=True, slots=True)
class Calls:
    """What the file of a module calls."""

    sections: Mapping[str, int]
    """Those with code that stays while it is loaded, and their length."""
    places: Mapping[str, list[tuple[str, int]]]
    """By locked function: section, and where in it a call returns to."""
    open: list[str]
    """Locked functions that calls by a pointer within the module may reach, too."""


def calls_in(file: ModuleFile, through: Mapping[str, Collection[str]]) -> Calls:
    """Of a module. Raises `ValueError` where its file is damaged.

    `through`: by locked function the functions of the kernel that lead to it by a jump, and itself.
    """
    try:
        laid = _Laid(file, {name for names in through.values() for name in names})
    except (IndexError, struct.error) as error:
        raise ValueError(f"it is not a module: {error}") from error
    places, open_ = {}, []
    for function, names in through.items():
        found = laid.code.callers(sorted(laid.stubs.intersection(names)), {}).values() if laid.stubs else ()
        places[function] = sorted({laid.place(each) for callers in found for each in callers.returns})
        if any(callers.taken for callers in found):
            open_.append(function)
    return Calls({each.name: each.length for each in file.sections if _stays(each)}, places, open_)


class _Laid:
    """A module put together."""

    def __init__(self, file: ModuleFile, wanted: Collection[str]) -> None:
        self._starts: dict[int, int] = {}  # by number of the section
        self._file = file
        text = bytearray()
        for each in file.sections:
            if _stays(each):
                self._starts[each.index] = _BASE + len(text)
                text += file.content(each).ljust(-(-(each.length + _APART) // _STUB) * _STUB, _FILLED)
        symbols: list[tuple[int, str]] = []
        addresses: list[int] = []
        self.stubs: set[str] = set()
        """Functions of the kernel's that are wanted, and that it uses."""
        for symbol in file.symbols:
            address = self._starts[symbol.section] + symbol.value if symbol.section in self._starts else 0
            if not symbol.section and symbol.name in wanted:
                address = _BASE + len(text)
                text += _FILLED * _STUB
                self.stubs.add(symbol.name)
            if address and (not symbol.section or symbol.kind == _FUNCTION):
                symbols.append((address, symbol.name))
            addresses.append(address)
        data = list(self._related(addresses, text)) if self.stubs else []  # most modules call none of them
        self.code = Code(bytes(text), _BASE, symbols, data)

    def place(self, address: int) -> tuple[str, int]:
        """Section, and where in it."""
        index, start = max(((index, start) for index, start in self._starts.items() if start <= address), key=_start)
        return self._file.sections[index].name, address - start

    def _related(self, addresses: list[int], text: bytearray) -> Iterable[bytes]:
        """Put what is known in place of what is not; yields the addresses that data gets."""
        for target, relocations in self._file.relocations():
            start = self._starts.get(target.index, 0)
            if not start and (not target.is_allocated or target.name.startswith(_LISTS)):
                continue
            data = bytearray()
            for each in relocations:
                known = addresses[each.symbol]
                if not start:
                    data += struct.pack("<Q", known + each.addend) if known and each.kind == _ABSOLUTE else b""
                    continue
                at = start + each.offset - _BASE
                if each.kind in (_RELATIVE, _CALL):
                    relative = struct.pack("<i", known + each.addend - start - each.offset) if known else _FILLED * 4
                    text[at : at + 4] = relative
                elif known:
                    text[at : at + 4] = struct.pack("<I", known + each.addend & 0xFFFFFFFF)
            if data:
                yield bytes(data)


def _start(section: tuple[int, int]) -> int:
    return section[1]


def _stays(section: ModuleSection) -> bool:
    return section.is_code and not section.name.startswith(_LISTS)
