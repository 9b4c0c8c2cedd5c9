"""The registers of each processor that say where system calls enter the kernel, where the module `msr` shows them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_CPUS = Path("/dev/cpu")
_REGISTERS = {0xC0000082: "LSTAR", 0xC0000083: "CSTAR", 0x176: "SYSENTER_EIP"}
"""Architectural numbers, and names."""


def shown(cpus: Path = _CPUS) -> bool:
    """Whether they can be read now."""
    return any(cpus.glob("[0-9]*/msr"))


@dataclass(frozen=True, slots=True)
class Change:
    """A register that is not what it was, or is so again."""

    name: str
    cpu: int
    was: int
    now: int
    restored: bool


class Registers:
    """Tells each new value once. What the first look finds is what a register was, if it is the kernel's own code."""

    def __init__(self, is_kernel: Callable[[int], bool], cpus: Path = _CPUS) -> None:
        """`is_kernel`: whether an address is in the kernel's own code."""
        self._is_kernel, self._cpus = is_kernel, cpus
        self._first: dict[tuple[int, str], int] = {}
        self._told: dict[tuple[int, str], int] = {}

    def look(self) -> Iterator[Change]:
        """Nothing where they cannot be read. The AMD way has no SYSENTER in long mode: 0 is no address."""
        for cpu, values in self._read():
            for name, now in values.items():
                key = cpu, name
                if key not in self._first:
                    self._first[key] = self._told[key] = now if not now or self._is_kernel(now) else 0
                if now != self._told[key]:
                    self._told[key] = now
                    yield Change(name, cpu, self._first[key], now, now == self._first[key])

    def _read(self) -> Iterator[tuple[int, Mapping[str, int]]]:
        for file in sorted(self._cpus.glob("[0-9]*/msr")):
            try:
                descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:  # a CPU that went offline, or a module that is being removed
                continue
            try:
                yield int(file.parent.name), {name: _value(descriptor, number) for number, name in _REGISTERS.items()}
            finally:
                os.close(descriptor)


def _value(descriptor: int, number: int) -> int:
    return int.from_bytes(os.pread(descriptor, 8, number), "little")
