"""Files of modules, written by a test."""

import struct

BUILD_ID = "0011223344556677"
NOTES = ".note.gnu.build-id"
PROGBITS, SYMTAB, STRTAB, RELA = 1, 2, 3, 4
CODE, DATA = 6, 3
LENGTH = 256
CALL, ABSOLUTE = 4, 1  # R_X86_64_PLT32, R_X86_64_64


class Module:
    """With functions of 256 bytes each in .text, of which none is where the kernel's are."""

    def __init__(self, *functions: str) -> None:
        self._text = bytearray(b"\xcc" * LENGTH * len(functions))
        self._symbols = {name: (1, LENGTH * index) for index, name in enumerate(functions)}
        self._relocations: dict[str, list[tuple[int, int, str, int]]] = {".text": [], ".data": []}

    def branch(self, opcode: int, name: str, target: str) -> int:
        """An instruction at the begin of a function; returns where in .text it ends."""
        at = self._symbols[name][1]
        self._text[at : at + 5] = bytes((opcode, 0, 0, 0, 0))
        self._symbols.setdefault(target, (0, 0))
        self._relocations[".text"].append((at + 1, CALL, target, -4))
        return at + 5

    def pointer(self, target: str) -> None:
        self._relocations[".data"].append((0, ABSOLUTE, target, 0))

    def file(self) -> bytes:
        strings, symbols, numbers = b"\0", bytes(24), {}
        for number, (name, (section, value)) in enumerate(self._symbols.items(), 1):
            symbols += struct.pack("<IBBHQQ", len(strings), 0x12, 0, section, value, 0)
            strings += name.encode() + b"\0"
            numbers[name] = number
        note = struct.pack("<III", 4, 8, 3) + b"GNU\0" + bytes.fromhex(BUILD_ID)
        sections = [
            ("", 0, 0, b"", 0, 0),
            (".text", PROGBITS, CODE, bytes(self._text), 0, 0),
            (".data", PROGBITS, DATA, bytes(8), 0, 0),
            (".symtab", SYMTAB, 0, symbols, 4, 0),
            (".strtab", STRTAB, 0, strings, 0, 0),
            (NOTES, 7, 2, note, 0, 0),
        ]
        for index, name in ((1, ".text"), (2, ".data")):
            content = b"".join(
                struct.pack("<QIIq", at, kind, numbers[target], addend)
                for at, kind, target, addend in self._relocations[name]
            )
            sections.append((f".rela{name}", RELA, 0, content, 3, index))
        names = b"".join(each[0].encode() + b"\0" for each in sections) + b".shstrtab\0"
        sections.append((".shstrtab", STRTAB, 0, names, 0, 0))
        body, headers, name_at = b"", b"", 0
        for name, kind, flags, content, link, info in sections:
            headers += struct.pack(
                "<IIQQQQIIQQ", name_at, kind, flags, 0, 64 + len(body), len(content), link, info, 1, 0
            )
            body += content
            name_at += len(name) + 1
        elf = b"\x7fELF\x02\x01".ljust(16, b"\0") + struct.pack(
            "<HHIQQQIHHH", 1, 62, 1, 0, 0, 64 + len(body), 0, 64, 0, 0
        )
        return elf + struct.pack("<HHH", 64, len(sections), len(sections) - 1) + body + headers
