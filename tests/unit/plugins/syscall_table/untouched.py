"""A kernel that nobody touched: its memory and its symbols, as far as system calls need them."""

import struct
from collections.abc import Mapping
from pathlib import Path

from krie import KernelError, KernelMemory
from krie.plugins.syscall_table.derive import SYMBOLS, Derivation
from krie.plugins.syscall_table.derived import Derived
from krie.plugins.syscall_table.kallsyms import Kallsyms
from krie.plugins.syscall_table.pieces import Piece

TEXT = 0xFFFFFFFF81000000
MODULE = 0xFFFFFFFFC0100000
NOP = bytes.fromhex("0f1f440000")
ENDBR = bytes.fromhex("f30f1efa")
CALLS = ("read", "write", "open")


class Kernel(KernelMemory):
    """A small one: three system calls, their table and switch, a gate, a table of functions."""

    def __init__(self, tmp_path: Path) -> None:
        self.parts: dict[int, bytearray] = {}
        self.symbols: dict[str, int] = {"_stext": TEXT, "_etext": TEXT + 0x100000}
        self.file = tmp_path / "kallsyms"
        self.modules: list[range] = []
        """Where those lie that are listed."""
        self.of_modules = ""
        """Their lines among the kernel's symbols."""
        self.handlers = {call: TEXT + 0x1000 + 0x100 * index for index, call in enumerate(CALLS)}
        for call, address in self.handlers.items():
            self.put(f"__x64_sys_{call}", address, (ENDBR + NOP).ljust(0x100, b"\x90"))
        self.put("sys_call_table", TEXT + 0x200000, struct.pack("=4Q", *self.handlers.values(), 0))
        self.put("after_table", TEXT + 0x200020, bytes(8))
        code = b"".join(self.case(0x5000 + 16 * index, address) for index, address in enumerate(self.handlers.values()))
        self.put("x64_sys_call", TEXT + 0x5000, code)
        self.put("after_switch", TEXT + 0x5000 + len(code), bytes(8))
        self.put("do_syscall_64", TEXT + 0x6000, b"\x90" * 300)
        self.put("after_entry", TEXT + 0x6000 + 300, bytes(8))
        self.put("__start___jump_table", TEXT + 0x300000, struct.pack("=iiq", 0x6010 - 0x300000, 0, 0))
        self.put("__stop___jump_table", TEXT + 0x300010, bytes(8))
        self.put("idt_table", TEXT + 0x400000, bytes(4096))
        self.put("some_fops", TEXT + 0x500000, struct.pack("=4Q", 0, TEXT + 0x1000, 7, TEXT + 0x1100))
        self.put("after_fops", TEXT + 0x500020, bytes(8))

    @staticmethod
    def case(offset: int, handler: int) -> bytes:
        """`cmp $5, %eax; jne ...; jmp handler`, of 16 bytes."""
        jump = b"\x83\xf8\x05\x75\x0b" + b"\xe9" + struct.pack("=i", handler - (TEXT + offset + 10))
        return jump.ljust(16, b"\x90")

    def put(self, name: str, address: int, content: bytes) -> None:
        self.symbols[name], self.parts[address] = address, bytearray(content)

    def write(self, address: int, content: bytes) -> None:
        for start, part in self.parts.items():
            if start <= address < start + len(part):
                part[address - start : address - start + len(content)] = content

    def read(self, address: int, size: int) -> bytes:
        for start, part in self.parts.items():
            if start <= address and address + size <= start + len(part):
                return bytes(part[address - start : address - start + size])
        raise KernelError("reading", 14)

    def list_symbols(self) -> None:
        """As the kernel does in /proc/kallsyms."""
        lines = sorted((address, name) for name, address in self.symbols.items())
        self.file.write_text("".join(f"{address:016x} T {name}\n" for address, name in lines) + self.of_modules)

    def derive(self, *pointers: str) -> Derived:
        self.list_symbols()
        symbols = Kallsyms((*SYMBOLS, *pointers), self.file)
        return Derivation(symbols, self, lambda: self.modules).run(pointers)


def by_where(derived: Derived) -> Mapping[int, list[Piece]]:
    return {where: [each for each in derived.pieces if each.where == where] for where in range(1, 7)}
