"""The file of a module of the kernel: what its code is before the kernel has put it into memory."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..kernel_files import AnyFile
from ..trust import read_trusted

_ELF = b"\x7fELF\x02\x01"
_RELOCATABLE = 1  # ET_REL
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QIIq")
_NOTE = struct.Struct("<III")
_PROGBITS, _SYMTAB, _RELA, _NOBITS = 1, 2, 4, 8
_ALLOCATED, _EXECUTABLE = 2, 4
_BUILD_ID = 3  # NT_GNU_BUILD_ID
_NOTES = ".note.gnu.build-id"
_MOST_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class ModuleSection:
    """One of a file's sections."""

    index: int
    name: str
    kind: int
    flags: int
    place: int
    """In the file."""
    length: int
    link: int
    info: int

    @property
    def is_allocated(self) -> bool:
        """Whether it lies in memory."""
        return bool(self.flags & _ALLOCATED)

    @property
    def is_code(self) -> bool:
        """Whether the processor may run it."""
        flags = _ALLOCATED | _EXECUTABLE
        return self.kind == _PROGBITS and self.flags & flags == flags


class ModuleSymbol(NamedTuple):
    """One of a file's symbols."""

    name: str
    kind: int
    """STT_..."""
    section: int
    """By its index; 0: the kernel's, or another module's."""
    value: int
    """Where in the section."""


class Relocation(NamedTuple):
    """What the kernel writes when it loads the module."""

    offset: int
    """Where in the section."""
    kind: int
    """R_X86_64_..."""
    symbol: int
    addend: int


class ModuleFile:
    """A module's file."""

    def __init__(self, packed: bytes) -> None:
        """`packed`: as it lies on the disk. Raises `ValueError` where this is no module."""
        self._elf = _unpacked(packed)
        if not self._elf.startswith(_ELF) or struct.unpack_from("<H", self._elf, 16)[0] != _RELOCATABLE:
            raise ValueError("it is no 64-bit ELF file to be linked")
        try:
            self.sections = tuple(self._sections())
            table = next((each for each in self.sections if each.kind == _SYMTAB), None)
            notes = next((each for each in self.sections if each.name == _NOTES), None)
            if table is None or notes is None:
                raise ValueError("it has no symbols" if table is None else "it has no build id")
            self.symbols = tuple(self._symbols(table, self.sections[table.link]))
            self.build_id = build_id(self.content(notes))
        except (IndexError, struct.error) as error:
            raise ValueError(f"it is not a module: {error}") from error

    def content(self, section: ModuleSection) -> bytes:
        """Its bytes; zeros where the file has none. Raises `ValueError` where the file is too short."""
        if section.kind == _NOBITS:
            return bytes(section.length)
        content = self._elf[section.place : section.place + section.length]
        if len(content) < section.length:
            raise ValueError(f"it is not a module: {section.name or 'a section'} is cut off")
        return content

    def relocations(self) -> Iterator[tuple[ModuleSection, Iterator[Relocation]]]:
        """Those of each section that has some; of a damaged file, of symbols that it does not have, too.

        Raises `ValueError`.
        """
        for each in self.sections:
            if each.kind == _RELA:
                content = self.content(each)
                if each.info >= len(self.sections) or len(content) % _RELOCATION.size:
                    raise ValueError(f"it is not a module: {each.name} is of no section")
                yield self.sections[each.info], map(Relocation._make, _RELOCATION.iter_unpack(content))

    def _sections(self) -> Iterator[ModuleSection]:
        (table,) = struct.unpack_from("<Q", self._elf, 0x28)
        size, count, names = struct.unpack_from("<HHH", self._elf, 0x3A)
        headers = [_SECTION.unpack_from(self._elf, table + index * size) for index in range(count)]
        strings = headers[names][4]
        for index, (name, kind, flags, _, place, length, link, info, _, _) in enumerate(headers):
            yield ModuleSection(index, self._text(strings + name), kind, flags, place, length, link, info)

    def _symbols(self, table: ModuleSection, strings: ModuleSection) -> Iterator[ModuleSymbol]:
        for name, info, _, section, value, _ in _SYMBOL.iter_unpack(self.content(table)):
            yield ModuleSymbol(self._text(strings.place + name), info & 0xF, section, value)

    def _text(self, at: int) -> str:
        return self._elf[at : self._elf.index(b"\0", at)].decode(errors="replace")


def module_files(folder: Path) -> dict[str, Path]:
    """By name those that modprobe would load. Raises `ConfigError`, `UntrustedFileError`."""
    found: dict[str, Path] = {}
    for line in os.fsdecode(read_trusted(folder / "modules.dep")).splitlines():
        path = folder / line.partition(":")[0]
        found.setdefault(path.name.partition(".ko")[0].replace("-", "_"), path)
    return found


def module_file(name: str, files: Mapping[str, Path], own: AnyFile) -> ModuleFile:
    """That of the loaded module of this name; `own`: its folder below /sys/module.

    Raises `ValueError` where there is none of this build, `OSError`, `ConfigError`, `UntrustedFileError`.
    """
    if name not in files:
        raise ValueError("no file of this name is in modules.dep")
    found = ModuleFile(read_trusted(files[name], _MOST_BYTES))
    if (running := build_id((own / "notes" / _NOTES).read_bytes())) != found.build_id:
        raise ValueError(f"{files[name]} is another build: {found.build_id}, and not {running}")
    return found


def build_id(notes: bytes) -> str:
    """Out of an ELF note section, such as /sys/kernel/notes. Raises `ValueError` where there is none."""
    at = 0
    while at + _NOTE.size <= len(notes):
        name, length, kind = _NOTE.unpack_from(notes, at)
        start = at + _NOTE.size + (name + 3) // 4 * 4
        if kind == _BUILD_ID and notes[at + _NOTE.size :].startswith(b"GNU\0"):
            return notes[start : start + length].hex()
        at = start + (length + 3) // 4 * 4
    raise ValueError("it has no build id")


def _unpacked(packed: bytes) -> bytes:
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
