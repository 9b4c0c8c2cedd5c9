"""Code that calls, written by a test, and functions that are declared."""

import struct

from krie.plugins.cfi.declaration import Declaration, Indirect, parse
from krie.plugins.cfi.derivation import Code

BASE = 0xFFFFFFFF81000000
ENDBR = b"\xf3\x0f\x1e\xfa"
BUILD = "0123456789abcdef"


class Text:
    """Functions of 256 bytes each, filled with breakpoints as the kernel's text is."""

    def __init__(self, *names: str) -> None:
        self.code = bytearray(b"\xcc" * 256 * len(names))
        self.at = {name: BASE + 256 * index for index, name in enumerate(names)}

    def put(self, name: str, offset: int, code: bytes) -> None:
        start = self.at[name] - BASE + offset
        self.code[start : start + len(code)] = code

    def branch(self, opcode: bytes, name: str, offset: int, target: int) -> int:
        """Returns the address behind it."""
        end = self.at[name] + offset + len(opcode) + 4
        self.put(name, offset, opcode + struct.pack("<i", target - end))
        return end

    def of(self, *data: bytes) -> Code:
        return Code(bytes(self.code), BASE, [(address, name) for name, address in self.at.items()], data)


def declared(**indirect: list[str]) -> Declaration:
    functions = parse('schema = 1\n[functions.locked]\nnumber = 1\nwhy = "a"', "here").functions
    return Declaration(functions, {name: Indirect(callers=each, why="a") for name, each in indirect.items()}, {}, {})


def by_pointer() -> tuple[Text, Code]:
    text = Text("caller", "through", "pointer", "locked")
    text.branch(b"\xe8", "caller", 16, text.at["locked"])
    text.branch(b"\xe9", "through", 16, text.at["locked"])
    text.put("pointer", 16, b"\xff\xd0")
    return text, text.of(struct.pack("<Q", text.at["through"]))
