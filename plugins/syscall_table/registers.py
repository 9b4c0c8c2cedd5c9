"""The registers of each processor that say where system calls enter the kernel, where the module `msr` shows them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CPUS = Path("/dev/cpu")
_PAGE = 0xFFF
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
    """

    def __init__(self, address: Callable[[str], int], is_kernel: Callable[[int], bool], cpus: Path = CPUS) -> None:
        """`address`: of the kernel's symbols, 0 for what it does not tell. `is_kernel`: is that its own code?"""
        self._should = {
            number: tuple(found for each in register.symbols if (found := address(each)))
            for number, register in _REGISTERS.items()
        }
        self._is_kernel, self._cpus = is_kernel, cpus
        self._first: dict[tuple[int, int], int] = {}
        self._told: dict[tuple[int, int], int] = {}

    def look(self) -> Iterator[Change]:
        """Nothing where they cannot be read."""
        for cpu, values in _read(self._cpus):
            for register, now in values.items():
                key = cpu, register
                if key not in self._first:
                    right = self._is_right(register, now)
                    self._first[key] = now if right else next(iter(self._should[register]), 0)
                    self._told[key] = self._first[key]
                if now != self._told[key]:
                    self._told[key] = now
                    yield Change(register, cpu, self._first[key], now, now == self._first[key])

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
