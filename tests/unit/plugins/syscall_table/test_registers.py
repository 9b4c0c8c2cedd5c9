"""Registers of processors, and the kernel's copies of one, are held against what the kernel's symbols say."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from krie import KernelMemory
from krie.plugins.syscall_table import entries
from krie.plugins.syscall_table.control import SYMBOLS, Control, Lost
from krie.plugins.syscall_table.registers import Change, Registers, on_cpu, shown

SYSENTER, FRED, LSTAR, CSTAR = 0x176, 0x1D4, 0xC0000082, 0xC0000083
ENTRY, COMPAT, IGNORE, OTHER, MODULE = (0xFFFFFFFF81000000 + each for each in (0x80, 0x900, 0xA00, 0xB00, 1 << 30))
KNOWN = {"entry_SYSCALL_64": ENTRY, "entry_SYSCALL_compat": COMPAT, "entry_SYSCALL32_ignore": IGNORE}


class Processor:
    """The first one, with such registers."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.values = folder, {SYSENTER: 0, LSTAR: ENTRY, CSTAR: COMPAT}
        self.guests: dict[int, int] = {}
        """What a virtual machine has in them, while it is its turn."""
        self.may_run = True
        monkeypatch.setattr(os, "pread", self._read)

    def appear(self) -> None:
        (self.folder / "0").mkdir()
        (self.folder / "0/msr").touch()

    def registers(self, known: dict[str, int]) -> Registers:
        return Registers(lambda name: known.get(name, 0), lambda address: address < MODULE, self.folder, self._on)

    @contextmanager
    def _on(self, cpu: int) -> Iterator[bool]:
        assert cpu == 0
        before = self.guests
        if self.may_run:
            self.guests = {}
        yield self.may_run
        self.guests = before

    def _read(self, _: int, size: int, number: int) -> bytes:
        if number not in self.values:
            raise OSError
        return self.guests.get(number, self.values[number]).to_bytes(size, "little")


@pytest.fixture
def processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Processor:
    made = Processor(tmp_path, monkeypatch)
    assert not shown(tmp_path)
    made.appear()
    assert shown(tmp_path)
    return made


def test_each_new_value_is_told_once(processor: Processor) -> None:
    registers = processor.registers(KNOWN)
    assert list(registers.look()) == []
    processor.values[LSTAR] = MODULE
    assert list(registers.look()) == [Change(LSTAR, 0, ENTRY, MODULE, False)]
    assert list(registers.look()) == []
    processor.values[LSTAR] = ENTRY
    assert list(registers.look()) == [Change(LSTAR, 0, ENTRY, ENTRY, True)]


def test_a_virtual_machines_registers_are_not_the_kernels(processor: Processor) -> None:
    registers = processor.registers(KNOWN)
    processor.guests = {LSTAR: OTHER, CSTAR: MODULE}
    assert list(registers.look()) == []
    processor.values[LSTAR] = MODULE
    assert list(registers.look()) == [Change(LSTAR, 0, ENTRY, MODULE, False)]
    processor.values[LSTAR] = ENTRY
    assert list(registers.look()) == [Change(LSTAR, 0, ENTRY, ENTRY, True)]


def test_where_this_thread_may_not_run_nothing_is_told(processor: Processor) -> None:
    processor.guests, processor.may_run = {LSTAR: MODULE}, False
    registers = processor.registers(KNOWN)
    assert list(registers.look()) == []
    processor.guests = {}
    assert list(registers.look()) == []


def test_this_thread_goes_where_it_may() -> None:
    before = os.sched_getaffinity(0)
    with on_cpu(min(before)) as there:
        assert there
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before
    with on_cpu(4095) as there:
        assert not there
    assert os.sched_getaffinity(0) == before


def test_files_that_nobody_may_read_show_nothing(processor: Processor) -> None:
    processor.values = {}
    assert not shown(processor.folder)
    (processor.folder / "0/msr").unlink()
    (processor.folder / "0/msr").symlink_to("nowhere")
    processor.values = {LSTAR: ENTRY}
    assert not shown(processor.folder)


def test_what_was_changed_before_is_told_by_the_symbols(processor: Processor) -> None:
    processor.values |= {LSTAR: OTHER, CSTAR: IGNORE}  # the kernel's own code, but not that which is entered
    assert list(processor.registers(KNOWN).look()) == [Change(LSTAR, 0, ENTRY, OTHER, False)]


def test_without_symbols_it_must_be_the_kernels_code(processor: Processor) -> None:
    processor.values |= {LSTAR: OTHER, CSTAR: MODULE}
    assert list(processor.registers({}).look()) == [Change(CSTAR, 0, 0, MODULE, False)]


def test_what_replaces_them_carries_flags(processor: Processor) -> None:
    fred = ENTRY & ~0xFFF
    processor.values = {LSTAR: 0, FRED: fred | 0x21}
    assert list(processor.registers({"asm_fred_entrypoint_user": fred}).look()) == []
    processor.values[FRED] = MODULE | 0x21
    (change,) = processor.registers({"asm_fred_entrypoint_user": fred}).look()
    assert (change.register, change.was) == (FRED, fred)


COPIES, PINNED, TABLE, OFFSET = 0x1000, 0x2000, 0x3000, 0x40
SMEP, UMIP = 1 << 20, 1 << 11
ADDRESSES = dict(zip(SYMBOLS, (COPIES, PINNED, TABLE), strict=True))


class Copies(KernelMemory):
    """Of CR4, of two processors."""

    def __init__(self) -> None:
        self.values = {PINNED: SMEP | UMIP, TABLE: 0x100000, TABLE + 8: 0x200000}
        for cpu in (0, 1):
            self.write(cpu, SMEP | UMIP | 0x20)

    @staticmethod
    def place(cpu: int) -> int:
        return 0x100000 * (cpu + 1) + COPIES + OFFSET

    def write(self, cpu: int, value: int) -> None:
        self.values[self.place(cpu)] = value

    def read(self, address: int, size: int) -> bytes:
        return self.values[address].to_bytes(size, "little")


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Copies], Control]:
    monkeypatch.setattr("krie.plugins.syscall_table.walker._POSSIBLE", tmp_path / "possible")
    monkeypatch.setattr("krie.plugins.syscall_table.control.possible", lambda place=None: [0, 1])
    monkeypatch.setattr("krie.plugins.syscall_table.walker.possible", lambda: [0, 1])
    return lambda copies: Control(copies, lambda name: ADDRESSES.get(name, 0), lambda: OFFSET)


def test_a_copy_of_cr4_that_lacks_pinned_bits_is_told_by_two_looks(two: Callable[[Copies], Control]) -> None:
    copies = Copies()
    control = two(copies)
    assert control.known
    assert list(control.look()) == []
    copies.write(1, UMIP | 0x20)
    assert list(control.look()) == []
    place = Copies.place(1)
    assert list(control.look()) == [Lost(1, place, SMEP | UMIP | 0x20, UMIP | 0x20, False)]
    assert list(control.look()) == []
    copies.write(1, SMEP | UMIP)  # what is not pinned may change
    assert list(control.look()) == [Lost(1, place, SMEP | UMIP, SMEP | UMIP, True)]
    copies.write(0, 0)
    assert list(control.look()) == []
    copies.write(0, SMEP | UMIP)  # it was being started
    assert list(control.look()) == []


def test_a_kernel_that_pins_nothing_or_does_not_tell(two: Callable[[Copies], Control]) -> None:
    copies = Copies()
    copies.values[PINNED] = 0
    control = two(copies)
    assert not control.known
    assert list(control.look()) == []
    assert not Control(Copies(), lambda _: 0).known


def test_a_full_look_says_what_differs_and_what_it_cannot_see(
    processor: Processor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kallsyms = tmp_path / "kallsyms"
    kallsyms.write_text("".join(f"{address:016x} T {name}\n" for name, address in KNOWN.items()))
    monkeypatch.setattr(entries, "KALLSYMS", kallsyms)
    (check,) = entries.check(Copies(), processor.folder)
    assert check.reference
    assert check.differences == ()
    assert [any(word in each for each in check.not_looked_at) for word in ("IDTR", "bits of CR4", "module msr")] == [
        *(True, True, False)
    ]
    processor.values[LSTAR] = MODULE
    (check,) = entries.check(Copies(), processor.folder)
    (difference,) = check.differences
    assert (difference.place, difference.was) == ("LSTAR of CPU 0", f"{ENTRY:x}")
    (check,) = entries.check(Copies(), tmp_path / "none")
    assert (check.reference, check.compared) == ("", 0)
    assert any("module msr" in each for each in check.not_looked_at)
