"""Files of modules, written by a test."""

import struct
from collections.abc import Sequence

BUILD_ID = "0011223344556677"
NOTES = ".note.gnu.build-id"
PROGBITS, SYMTAB, STRTAB, RELA, NOTE = 1, 2, 3, 4, 7
CODE, DATA, ALLOCATED = 6, 3, 2
LENGTH = 256
ABSOLUTE, RELATIVE, CALL = 1, 2, 4  # R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32


class Module:
    """With functions of 256 bytes each in .text, of which none is where the kernel's are."""

    def __init__(self, *functions: str) -> None:
        self.text = bytearray(b"\xcc" * LENGTH * len(functions))
        self._sections: dict[str, tuple[int, bytes | bytearray]] = {
            ".text": (CODE, self.text),
            ".data": (DATA, bytes(8)),
        }
        self._symbols = {name: (1, LENGTH * index) for index, name in enumerate(functions)}
        self._relocations: dict[str, list[tuple[int, int, str, int]]] = {".text": [], ".data": []}

    def branch(self, opcode: int, name: str, target: str, at: int = 0) -> int:
        """An instruction in a function; returns where in .text it ends."""
        place = self._symbols[name][1] + at
        self.text[place : place + 5] = bytes((opcode, 0, 0, 0, 0))
        self.relocate(".text", place + 1, CALL, target, -4)
        return place + 5

    def pointer(self, target: str) -> None:
        self.relocate(".data", 0, ABSOLUTE, target, 0)

    def section(self, name: str, content: bytes, flags: int = ALLOCATED) -> None:
        """A further one."""
        self._sections[name] = (flags, content)

    def relocate(self, section: str, at: int, kind: int, target: str, addend: int) -> None:
        """What the kernel shall write; a target that no function has is the kernel's."""
        self._symbols.setdefault(target, (0, 0))
        self._relocations.setdefault(section, []).append((at, kind, target, addend))

    def sites(
        self, name: str, function: str, offsets: Sequence[int], *, entry: bytes = bytes(4), kind: int = RELATIVE
    ) -> None:
        """A section whose entries each begin with where in a function something is patched."""
        self.section(name, entry * len(offsets))
        for index, offset in enumerate(offsets):
            self.relocate(name, index * len(entry), kind, function, offset)

    def file(self) -> bytes:
        strings, symbols, numbers = b"\0", bytes(24), {}
        for number, (name, (section, value)) in enumerate(self._symbols.items(), 1):
            symbols += struct.pack("<IBBHQQ", len(strings), 0x12, 0, section, value, 0)
            strings += name.encode() + b"\0"
            numbers[name] = number
        note = struct.pack("<III", 4, 8, 3) + b"GNU\0" + bytes.fromhex(BUILD_ID)
        own = [(name, PROGBITS, flags, bytes(content), 0, 0) for name, (flags, content) in self._sections.items()]
        table = len(own) + 1
        sections = [
            ("", 0, 0, b"", 0, 0),
            *own,
            (".symtab", SYMTAB, 0, symbols, table + 1, 0),
            (".strtab", STRTAB, 0, strings, 0, 0),
            (NOTES, NOTE, ALLOCATED, note, 0, 0),
        ]
        for index, name in enumerate(self._sections, 1):
            content = b"".join(
                struct.pack("<QIIq", at, kind, numbers[target], addend)
                for at, kind, target, addend in self._relocations.get(name, ())
            )
            sections.append((f".rela{name}", RELA, 0, content, table, index))
        return _linked(sections)


def _linked(sections: list[tuple[str, int, int, bytes, int, int]]) -> bytes:
    names = b"".join(each[0].encode() + b"\0" for each in sections) + b".shstrtab\0"
    body, headers, name_at = b"", b"", 0
    for name, kind, flags, content, link, info in [*sections, (".shstrtab", STRTAB, 0, names, 0, 0)]:
        headers += struct.pack("<IIQQQQIIQQ", name_at, kind, flags, 0, 64 + len(body), len(content), link, info, 1, 0)
        body += content
        name_at += len(name) + 1
    elf = b"\x7fELF\x02\x01".ljust(16, b"\0")
    elf += struct.pack("<HHIQQQIHHH", 1, 62, 1, 0, 0, 64 + len(body), 0, 64, 0, 0)
    return elf + struct.pack("<HHH", 64, len(sections) + 1, len(sections)) + body + headers
