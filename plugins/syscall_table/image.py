"""A kernel's boot image: what its code and read-only data are before the kernel patches itself.

What the kernel patches at boot, and where, is in tables of the image. Those places are not compared with the image:
`patched` tells them. All the rest must be the same, once the image is relocated to where KASLR put it.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress

from krie import build_id

NOP5 = bytes.fromhex("0f1f440000")
_HIGH = 0xFFFF_FFFF_0000_0000
_MASK = (1 << 64) - 1
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_LOAD, _NOBITS = 1, 8
_TEXT = ".text"
SITES = {
    ".return_sites": (0, 5),
    ".retpoline_sites": (0, 6),
    ".call_sites": (0, 5),
    ".ibt_endbr_seal": (0, 4),
    ".cfi_sites": (-16, 20),
    ".smp_locks": (0, 1),
}
"""Tables of 32-bit offsets from each entry itself to code, with what is patched there: from, so many bytes."""
RUNTIME = {"runtime_shift": 1, "runtime_mask": 4, "runtime_ptr": 8}
"""The same, by the begin of the sections' names: constants that the kernel learns at boot (e78298556ee5, 6.11)."""
_ALTERNATIVES = (struct.Struct("<iiIBB"), struct.Struct("<iiHBBB"), struct.Struct("<iiHBB"))
"""struct alt_instr as 6.12, 5.10 and 6.1 have it: which one is told by where its replacements are. The fourth is the
length."""


class Image:
    """An unpacked kernel: an ELF file, and relocations behind it where it is what a bootable image holds."""

    def __init__(self, content: bytes) -> None:
        """Raises `ValueError` where this is not a 64-bit kernel."""
        if content[:6] != b"\x7fELF\x02\x01":
            raise ValueError("it is not a 64-bit ELF file")
        try:
            self._content = content
            self.sections = dict(self._sections())
            self._segments = list(self._loaded())
            self._relocations = self._read_relocations()
            self.text = self.sections[_TEXT].start
        except (struct.error, KeyError, IndexError) as error:
            raise ValueError(f"it is not a kernel that can be read: {error}") from error

    @property
    def build_id(self) -> str:
        """As /sys/kernel/notes has it; empty where there is none."""
        notes = self.sections.get(".notes", range(0))
        with suppress(ValueError):
            return build_id(self.at(notes.start, len(notes)))
        return ""

    def at(self, address: int, size: int) -> bytes:
        """Bytes by their address in the file; zeros where the file has none. Raises `ValueError` outside of it."""
        for start, stored, room, place in self._segments:
            if start <= address and address + size <= start + room:
                offset = address - start
                return self._content[place + offset : place + min(stored, offset + size)].ljust(size, b"\0")
        raise ValueError(f"nothing lies at {address:#x}")

    def stop(self, address: int) -> int:
        """Where the segment with this address ends. Raises `ValueError` where there is none."""
        for start, _, room, _ in self._segments:
            if start <= address < start + room:
                return start + room
        raise ValueError(f"nothing lies at {address:#x}")

    def relocated(self, address: int, size: int, delta: int) -> bytearray:
        """The same as the kernel has them where KASLR moved it by `delta` bytes."""
        made = bytearray(self.at(address, size))
        for relocations, form, sign in self._relocations:
            value, mask = struct.Struct(form), (1 << 8 * struct.calcsize(form)) - 1
            last = size - value.size
            for each in relocations:
                offset = (each & _MASK) - address
                if 0 <= offset <= last:
                    (before,) = value.unpack_from(made, offset)
                    value.pack_into(made, offset, (before + sign * delta) & mask)
        return made

    def patched(self) -> Iterator[tuple[int, int]]:
        """Where the kernel patches itself while it boots: address and length, in no order."""
        for name, (shift, length) in SITES.items():
            yield from ((each + shift, length) for each in self._targets(name))
        for name in self.sections:
            for begin, length in RUNTIME.items():
                if name.startswith(begin):
                    yield from ((each, length) for each in self._targets(name))
        yield from self._alternatives()
        if (sites := self.sections.get(".parainstructions")) is not None:
            content = self.at(sites.start, len(sites))
            for address, _, length in struct.iter_unpack("<QBB6x", content + bytes(-len(content) % 16)):
                yield address, length  # the last one is not padded
        if (ids := self.sections.get(".BTF_ids")) is not None:  # sorted by btf_populate_kfunc_set() and the like
            yield ids.start, len(ids)

    def locks(self) -> Iterator[tuple[int, int]]:
        """Prefixes that the kernel makes to locks where its second processor comes: address and length."""
        yield from ((each, 1) for each in self._targets(".smp_locks"))

    def _targets(self, name: str) -> Iterator[int]:
        table = self.sections.get(name, range(0))
        content = self.at(table.start, len(table) // 4 * 4) if table else b""
        for index, (offset,) in enumerate(struct.iter_unpack("<i", content)):
            yield (table.start + 4 * index + offset) & _MASK

    def _alternatives(self) -> Iterator[tuple[int, int]]:
        table = self.sections.get(".altinstructions", range(0))
        if not table:
            return
        content, others = self.at(table.start, len(table)), self.sections.get(".altinstr_replacement", range(0))
        for form in _ALTERNATIVES:
            if len(content) % form.size:
                continue
            places = range(table.start, table.stop, form.size)
            entries = list(zip(places, form.iter_unpack(content), strict=True))
            # An empty one may lie at the end. Not all that is replaced is code: 7.3 has one in its data.
            if all(others.start <= place + 4 + by & _MASK <= others.stop for place, (_, by, *_) in entries):
                yield from ((place + what & _MASK, length) for place, (what, _, _, length, *_) in entries)
                return
        raise ValueError("its table of alternative instructions has a form that KRIe does not know")

    def _sections(self) -> Iterator[tuple[str, range]]:
        (table,) = struct.unpack_from("<Q", self._content, 0x28)
        count, names = struct.unpack_from("<HH", self._content, 0x3C)
        rows = [_SECTION.unpack_from(self._content, table + _SECTION.size * index) for index in range(count)]
        strings = rows[names][4]
        self._end = table + _SECTION.size * count
        for name_at, _, _, address, _, size, *_ in rows:
            start = strings + name_at
            if address:
                yield self._content[start : self._content.index(b"\0", start)].decode(), range(address, address + size)

    def _loaded(self) -> Iterator[tuple[int, int, int, int]]:
        """Address, bytes in the file, bytes in memory, and place in the file of each segment."""
        (table,) = struct.unpack_from("<Q", self._content, 0x20)
        (count,) = struct.unpack_from("<H", self._content, 0x38)
        for index in range(count):
            kind, _, place, address, _, stored, room, _ = _SEGMENT.unpack_from(
                self._content, table + _SEGMENT.size * index
            )
            if kind == _LOAD:
                yield address, stored, room, place

    def _read_relocations(self) -> tuple[tuple[Iterable[int], str, int], ...]:
        """Behind the ELF file, as arch/x86/tools/relocs.c writes them: lists of 32-bit addresses, each behind a zero.

        64-bit values; on kernels with per-CPU data at 0 (before 6.15) 32-bit values that count down; 32-bit values.
        """
        numbers = array("i")
        numbers.frombytes(self._content[self._end : self._end + (len(self._content) - self._end) // 4 * 4])
        if not numbers:
            return ()
        if numbers[0]:
            raise ValueError("its relocations have a form that KRIe does not know")
        zeros = [index for index, each in enumerate(numbers) if not each]
        lists = [numbers[start + 1 : end] for start, end in zip(zeros, [*zeros[1:], len(numbers)], strict=True)]
        if len(lists) not in (2, 3):
            raise ValueError("its relocations have a form that KRIe does not know")
        inverse = ((lists[1], "<I", -1),) if len(lists) == 3 else ()
        return ((lists[0], "<Q", 1), *inverse, (lists[-1], "<I", 1))
