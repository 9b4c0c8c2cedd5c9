"""The registers of each processor that say where system calls enter the kernel, where the module `msr` shows them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

CPUS = Path("/dev/cpu")
_PAGE = 0xFFF
_READS = 3
"""Where the kernel preempts itself, a virtual machine may run on that CPU between two of them."""
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
"""Whoever may put a FIFO there has nobody wait for it."""


@dataclass(frozen=True, slots=True)
class _Register:
    name: str
    symbols: tuple[str, ...]
    """Of the kernel's, what it may lead to."""
    flags: int = 0
    """Bits that are not part of the address."""


_REGISTERS = {
    0x176: _Register("SYSENTER_EIP", ("entry_SYSENTER_compat",)),
    0x1D4: _Register("FRED_CONFIG", ("asm_fred_entrypoint_user",), _PAGE),  # which replaces the others, since 6.9
    0xC0000082: _Register("LSTAR", ("entry_SYSCALL_64",)),
    # Without 32-bit programs: what does nothing but return, by both names that it had.
    0xC0000083: _Register("CSTAR", ("entry_SYSCALL_compat", "entry_SYSCALL32_ignore", "ignore_sysret")),
}
"""By their architectural numbers."""
SYMBOLS = tuple(symbol for each in _REGISTERS.values() for symbol in each.symbols)
NAMES = {number: each.name for number, each in _REGISTERS.items()}


def shown(cpus: Path = CPUS) -> bool:
    """Whether any of them can be read now: the files alone do not say so."""
    return any(values for _, values in _read(cpus))


@contextmanager
def on_cpu(cpu: int) -> Iterator[bool]:
    """Have this thread run there, if it may; whether it does."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError:  # it is offline, or none of our cpuset
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True, slots=True)
class Change:
    """A register that is not what it should be, or is so again."""

    register: int
    """Its number, which `NAMES` has."""
    cpu: int
    was: int
    """What it should be; 0 where the kernel does not tell."""
    now: int
    restored: bool


class Registers:
    """Tells each new value once. What a register should be, the kernel's symbols tell, not what the first look finds.

    Where they do not, it is what the first look finds if that is the kernel's own code. 0 leads nowhere: a processor
    of AMD has no SYSENTER in long mode, and a guest of Xen's enters by the hypervisor.

    While a virtual machine runs on a processor of Intel's, these registers may be its own, until KVM's thread, or
    whoever comes after it, returns to user space (kvm_set_user_return_msr(), arch/x86/kvm/x86.c). So what is not as it
    should be is read again there, by this thread, which has returned.
    """

    def __init__(
        self,
        address: Callable[[str], int],
        is_kernel: Callable[[int], bool],
        cpus: Path = CPUS,
        on: Callable[[int], AbstractContextManager[bool]] = on_cpu,
    ) -> None:
        """`address`: of the kernel's symbols, 0 for what it does not tell. `is_kernel`: is that its own code?

        `on`: has this thread run on a CPU, if it may.
        """
        self._should = {
            number: tuple(found for each in register.symbols if (found := address(each)))
            for number, register in _REGISTERS.items()
        }
        self._is_kernel, self._cpus, self._on = is_kernel, cpus, on
        self._first: dict[tuple[int, int], int] = {}
        self._told: dict[tuple[int, int], int] = {}

    def look(self) -> Iterator[Change]:
        """Nothing where they cannot be read."""
        for cpu, read in _read(self._cpus):
            values = read
            if any(
                now != self._told.get((cpu, register), self._first_of(register, now)) for register, now in read.items()
            ):
                values = self._read_there(cpu)
            for register, now in values.items():
                key = cpu, register
                if key not in self._first:
                    self._first[key] = self._told[key] = self._first_of(register, now)
                if now != self._told[key]:
                    self._told[key] = now
                    yield Change(register, cpu, self._first[key], now, now == self._first[key])

    def _read_there(self, cpu: int) -> Mapping[int, int]:
        """What several reads on the CPU itself agree on; nothing where this thread may not run there."""
        with self._on(cpu) as there:
            reads = [dict(values) for _ in range(_READS) for each, values in _read(self._cpus) if each == cpu and there]
        first, *others = reads or [{}]
        return {register: now for register, now in first.items() if all(each.get(register) == now for each in others)}

    def _first_of(self, register: int, now: int) -> int:
        """What it should be, by what the first look finds."""
        return now if self._is_right(register, now) else next(iter(self._should[register]), 0)

    def _is_right(self, register: int, value: int) -> bool:
        should = self._should[register]
        return not value or (value in should if should else self._is_kernel(value))


def _read(cpus: Path) -> Iterator[tuple[int, Mapping[int, int]]]:
    for file in sorted(cpus.glob("[0-9]*/msr")):
        try:
            descriptor = os.open(file, _FLAGS)
        except OSError:  # a CPU that went offline, or a module that is being removed; or nobody may
            continue
        try:
            yield int(file.parent.name), dict(_values(descriptor))
        finally:
            os.close(descriptor)


def _values(descriptor: int) -> Iterator[tuple[int, int]]:
    for number, register in _REGISTERS.items():
        try:
            value = int.from_bytes(os.pread(descriptor, 8, number), "little")
        except OSError:  # this processor has no such register
            continue
        yield number, value & ~register.flags
