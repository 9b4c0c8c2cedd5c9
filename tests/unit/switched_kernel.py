"""A kernel whose switches for kprobes and ftrace can be turned off and forged: its memory and files, and no more."""

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from krie.errors import KernelError
from krie.kernel import switches
from krie.kernel.switches import Addresses, Places, Switches

VARIABLE, COUNTER, IDLE, TRAP, OTHER = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000
ENABLED, DISABLED, FUNCTION = 0x6000, 0x7000, 0x8000
CALLED, NOT_CALLED = bytes.fromhex("e800000000"), bytes.fromhex("0f1f440000")
FTRACE = "ffffffff81000000  k  commit_creds+0x4    [FTRACE]\n"


class Kernel:
    """Memory, and the files of debugfs. Writing the switch arms kprobes, as far as that shows in memory."""

    def __init__(self, folder: Path) -> None:
        self.memory = {
            VARIABLE: b"\0",
            COUNTER: struct.pack("=i", 0),
            IDLE: NOT_CALLED,
            TRAP: b"\xcc",
            OTHER: b"\x55",
            ENABLED: struct.pack("=i", 1),
            DISABLED: struct.pack("=i", 0),
            FUNCTION: CALLED,
        }
        self.files = folder / "kprobes"
        self.files.mkdir()
        self.lists("")
        self.written: list[bytes] = []
        self.obeys = True
        self.ftrace_file = folder / "ftrace_enabled"
        self.closes_idle: Callable[[], None] = lambda: None
        self.debugfs = os.open(folder, os.O_RDONLY)
        addresses = Addresses(VARIABLE, COUNTER, ENABLED, DISABLED, IDLE)
        self.switch = Switches(self.read, self.debugfs, addresses, -1)

    def lists(self, text: str) -> None:
        (self.files / "list").write_text(text)

    def read(self, address: int, count: int) -> bytes:
        switch = self.files / "enabled"
        if switch.exists() and switch.read_bytes() == b"1\n" and self.obeys:
            self.memory[VARIABLE] = b"\0"
        if self.ftrace_file.exists() and self.ftrace_file.read_bytes() == b"1\n" and self.obeys:
            self.memory[ENABLED] = b"\1"
        if address not in self.memory:
            raise KernelError("reading kernel memory", 14)
        return self.memory[address].ljust(count, b"\0")[:count]

    def forge(self) -> None:
        (self.files / "enabled").write_bytes(b"0\n")
        self.memory[VARIABLE] = b"\1"

    def look(self, *places: int) -> tuple[str, str]:
        return self.switch.look(Places(frozenset(places) - {0}), self.closes_idle)

    def turn_ftrace_off(self) -> None:
        self.ftrace_file.write_bytes(b"0\n")
        self.memory[ENABLED] = bytes(4)
        self.memory[FUNCTION] = NOT_CALLED


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    monkeypatch.setattr(switches, "_AGAIN_S", 0)
    made = Kernel(tmp_path)
    yield made
    os.close(made.debugfs)


class Events:
    """Those of tracefs; they go where there is no obstacle."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.why = ""

    def name(self, address: int) -> str:
        return f"{address:x}"

    def own(self) -> list[str]:
        return [each for each in self.names if each != "of the dead"]

    def of_the_dead(self) -> list[str]:
        return ["of the dead"]

    def remove(self, name: str) -> str:
        if not self.why:
            self.names.remove(name)
        return self.why
