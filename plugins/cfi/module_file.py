"""Who calls a function of the kernel in the file of a module: by the relocations that tell the kernel where to put its
address. What lies in memory is never asked: whoever loads a module has made that.

A call of a function that is elsewhere is an instruction without a target, and a relocation for it. Both are put
together here as the kernel does when it loads the module, at addresses of no matter, and what comes out is searched as
the kernel's own code is (`derivation.py`), tail calls within the module followed.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import struct
import subprocess
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from .boot_image import build_id
from .derivation import Code

_ELF = b"\x7fELF\x02\x01"
_RELOCATABLE = 1  # ET_REL
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QIIq")
"""Place, type, symbol, addend."""
_PROGBITS, _SYMTAB, _RELA = 1, 2, 4
_ALLOCATED, _EXECUTABLE = 2, 4
_ABSOLUTE, _RELATIVE, _CALL = 1, 2, 4  # R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32
_FUNCTION = 2  # STT_FUNC
_BASE, _APART, _STUB = 0x5A5A5A000000, 64, 16
_FILLED = b"\xcc"
"""Where there is nothing, or what is not known: no branch goes from there, nor there."""
_LISTS = ("__mcount_loc", "__patchable_function_entries", ".static_call", "__jump_table", ".discard", ".init", ".exit")
"""Begins of the names of sections with addresses by which nobody calls, and of what is gone, or unused, later."""
_NOTES = ".note.gnu.build-id"


@dataclass(frozen=True, slots=True)
class Calls:
    """What the file of a module calls."""

    build_id: str
    sections: Mapping[str, int]
    """Those with code that stays while it is loaded, and their length."""
    places: Mapping[str, list[tuple[str, int]]]
    """By locked function: section, and where in it a call returns to."""
    open: list[str]
    """Locked functions that calls by a pointer within the module may reach, too."""


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    kind: int
    flags: int
    place: int
    length: int
    link: int
    info: int


def module_file(packed: bytes) -> bytes:
    """The file as the kernel loads it: modules may lie there packed. Raises `ValueError`."""
    try:
        if packed.startswith(b"\xfd7zXZ\0"):
            return lzma.decompress(packed)
        if packed.startswith(b"\x1f\x8b"):
            return gzip.decompress(packed)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"it is damaged: {error}") from error
    if packed.startswith(b"\x28\xb5\x2f\xfd"):
        if shutil.which("zstd") is None:
            raise ValueError("it takes zstd to unpack it: install zstd")
        done = subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=False)
        if done.returncode:
            raise ValueError(f"it is damaged: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout
    return packed


def calls_in(elf: bytes, through: Mapping[str, Collection[str]]) -> Calls:
    """Of a module's file, unpacked. Raises `ValueError` where it is none.

    `through`: by locked function the functions of the kernel that lead to it by a jump, and itself.
    """
    try:
        sections = list(_sections(elf))
        notes = next((each for each in sections if each.name == _NOTES), None)
        if notes is None:
            raise ValueError("it has no build id")
        laid = _Laid(elf, sections, {name for names in through.values() for name in names})
        places, open_ = {}, []
        for function, names in through.items():
            found = laid.code.callers(sorted(laid.stubs.intersection(names)), {}).values() if laid.stubs else ()
            places[function] = sorted({laid.place(each) for callers in found for each in callers.returns})
            if any(callers.taken for callers in found):
                open_.append(function)
        kept = {each.name: each.length for each in sections if _is_code(each)}
        return Calls(build_id(_content(elf, notes)), kept, places, open_)
    except (IndexError, struct.error) as error:
        raise ValueError(f"it is not a module: {error}") from error


class _Laid:
    """A module put together."""

    def __init__(self, elf: bytes, sections: list[_Section], wanted: Collection[str]) -> None:
        table = next((each for each in sections if each.kind == _SYMTAB), None)
        if table is None:
            raise ValueError("it has no symbols")
        self._starts: dict[int, int] = {}  # by number of the section
        self._sections = sections
        text = bytearray()
        for index, each in enumerate(sections):
            if _is_code(each):
                self._starts[index] = _BASE + len(text)
                text += _content(elf, each).ljust(-(-(each.length + _APART) // _STUB) * _STUB, _FILLED)
        self._end = _BASE + len(text)
        symbols: list[tuple[int, str]] = []
        addresses: list[int] = []
        self.stubs: set[str] = set()
        """Functions of the kernel's that are wanted, and that it uses."""
        for name, kind, section, value in _symbols(elf, table, sections[table.link]):
            address = self._starts[section] + value if section in self._starts else 0
            if not section and name in wanted:
                address = _BASE + len(text)
                text += _FILLED * _STUB
                self.stubs.add(name)
            if address and (not section or kind == _FUNCTION):
                symbols.append((address, name))
            addresses.append(address)
        related = [each for each in sections if each.kind == _RELA and self.stubs]  # most modules call none of them
        data = [self._related(elf, each, addresses, text) for each in related]
        self.code = Code(bytes(text), _BASE, symbols, [each for each in data if each])

    def place(self, address: int) -> tuple[str, int]:
        """Section, and where in it."""
        index, start = max(((index, start) for index, start in self._starts.items() if start <= address), key=_start)
        return self._sections[index].name, address - start

    def _related(self, elf: bytes, relocations: _Section, addresses: list[int], text: bytearray) -> bytes:
        """Put what is known in place of what is not; returns the addresses that data gets."""
        target = self._sections[relocations.info]
        start = self._starts.get(relocations.info, 0)
        is_data = target.flags & _ALLOCATED and not target.name.startswith(_LISTS)
        if not start and not is_data:
            return b""
        data = bytearray()
        for offset, kind, symbol, addend in _RELOCATION.iter_unpack(_content(elf, relocations)):
            known = addresses[symbol]
            if not start:
                data += struct.pack("<Q", known + addend) if known and kind == _ABSOLUTE else b""
                continue
            at = start + offset - _BASE
            if kind in (_RELATIVE, _CALL):
                relative = struct.pack("<i", known + addend - start - offset) if known else _FILLED * 4
                text[at : at + 4] = relative
            elif known:
                text[at : at + 4] = struct.pack("<I", known + addend & 0xFFFFFFFF)
        return bytes(data)


def _start(section: tuple[int, int]) -> int:
    return section[1]


def _is_code(section: _Section) -> bool:
    flags = _ALLOCATED | _EXECUTABLE
    return section.kind == _PROGBITS and section.flags & flags == flags and not section.name.startswith(_LISTS)


def _sections(elf: bytes) -> Iterator[_Section]:
    if not elf.startswith(_ELF) or struct.unpack_from("<H", elf, 16)[0] != _RELOCATABLE:
        raise ValueError("it is no 64-bit ELF file to be linked")
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [_SECTION.unpack_from(elf, table + index * size) for index in range(count)]
    strings = headers[names][4]
    for name, kind, flags, _, place, length, link, info, _, _ in headers:
        yield _Section(_text(elf, strings + name), kind, flags, place, length, link, info)


def _symbols(elf: bytes, table: _Section, strings: _Section) -> Iterator[tuple[str, int, int, int]]:
    """Name, kind, number of its section (0: another module's, or the kernel's), and where in it."""
    for name, info, _, section, value, _ in _SYMBOL.iter_unpack(_content(elf, table)):
        yield _text(elf, strings.place + name), info & 0xF, section, value


def _content(elf: bytes, section: _Section) -> bytes:
    return elf[section.place : section.place + section.length]


def _text(elf: bytes, at: int) -> str:
    return elf[at : elf.index(b"\0", at)].decode(errors="replace")
