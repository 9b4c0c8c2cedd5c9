"""A kernel's code and symbols, as far as comparing it needs them."""

import errno

from krie import KernelMemory
from krie.plugins.syscall_table.explain import Lists
from krie.plugins.syscall_table.tables import Tables

TEXT = range(0xFFFFFFFF81000000, 0xFFFFFFFF81004000)
MODULE = range(0xFFFFFFFFC0000000, 0xFFFFFFFFC0001000)
LABEL, FUNCTION, CALLER, PROBED = (TEXT.start + each for each in (0x108, 0x1800, 0x2000, 0x2FFE))
TABLES = Tables({LABEL: LABEL + 0x40})
NOTHING = Lists(frozenset(), frozenset())


class Memory:
    """A kernel's, that a test writes to."""

    def __init__(self) -> None:
        self.parts = {TEXT: bytearray(b"\x90" * len(TEXT)), MODULE: bytearray(b"\x90" * len(MODULE))}
        self.window = bytearray(8192)
        self.kernel = KernelMemory(0, self.window, self.run)

    def run(self, _program: int, arguments: tuple[int, ...]) -> int:
        address, size = arguments
        for part, content in self.parts.items():
            if address in part and address + size <= part.stop:
                self.window[:size] = content[address - part.start : address - part.start + size]
                return 0
        return -errno.EFAULT

    def write(self, address: int, content: bytes) -> None:
        for part, there in self.parts.items():
            if address in part:
                there[address - part.start : address - part.start + len(content)] = content
