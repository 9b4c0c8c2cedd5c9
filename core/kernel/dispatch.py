"""Programs for single system calls, behind the one program that runs at the entry of each: `bpf/dispatch.bpf.c`.

A kernel that offers nothing better than the entry of every system call pays there for one program, not for one a
probe. A layer is one attached dispatcher, with at most one program a system call. There is a second one only where two
programs want the same system call.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping

from ..errors import AttachError
from ..events.numbers import ONLY, WORD
from . import bpf
from .program import Program
from .syscalls import Numbers, numbers_of

FUNCTION = "krie_dispatch"
SYSCALLS = 1024
"""Numbers that are told apart, of native callers and of 32-bit ones."""
LAYERS = 4
"""Programs that can be attached to one system call."""
C_DEFINES: Mapping[str, int] = {"KRIE_SYSCALLS": SYSCALLS, "KRIE_LAYERS": LAYERS}


class Dispatcher:
    """Puts programs of type `AttachType.SYSCALL` where the dispatcher finds them."""

    def __init__(self, maps: Mapping[str, int], load: Callable[[int], int]) -> None:
        """`maps`: descriptors by name; `load`: loads `FUNCTION` with this argument, and returns its descriptor."""
        self._programs, self._wanted, self._load = maps["krie_syscalls"], maps["krie_wanted"], load
        self._layers = bytearray(SYSCALLS)
        self._placed: dict[Program, list[tuple[int, int]]] = {}
        """Layer and index in the map, where 32-bit numbers come behind the others."""
        self._taken: set[tuple[int, int]] = set()
        self._attached: set[int] = set()

    def place(self, program: Program, descriptor: int) -> None:
        """Let the loaded program run at its system call, once `attach` has run. Raises `AttachError`, `KernelError`."""
        numbers = numbers_of(program.target)
        indexes = _indexes(numbers)
        if not indexes:
            raise AttachError(f"syscall {program.target}", errno.ENOENT, "no system call that KRIe knows has this name")
        if max(*numbers.native, *numbers.ia32, 0) >= SYSCALLS:
            raise AttachError(f"syscall {program.target}", errno.EINVAL, f"its number is not below {SYSCALLS}")
        layer = next(
            (each for each in range(LAYERS) if not any((each, index) in self._taken for index in indexes)), None
        )
        if layer is None:
            raise AttachError(f"syscall {program.target}", errno.EBUSY, f"{LAYERS} programs are attached to it already")
        self._placed[program] = [(layer, index) for index in indexes]
        for place in self._placed[program]:
            self._taken.add(place)
            bpf.update(self._programs, _slot(*place), WORD.encode(descriptor))
            self._layers[place[1] % SYSCALLS] |= 1 << layer
        self._tell()

    def remove(self, program: Program) -> None:
        """Let it run no longer. Nothing happens where it was not placed. Raises `KernelError`."""
        for layer, index in self._placed.pop(program, ()):
            self._taken.discard((layer, index))
            if not {(layer, index), (layer, (index + SYSCALLS) % (2 * SYSCALLS))} & self._taken:
                self._layers[index % SYSCALLS] &= ~(1 << layer)
            bpf.delete(self._programs, _slot(layer, index))
        self._tell()

    def attach(self) -> Iterator[tuple[str, int]]:
        """Attach the dispatcher of each layer that has programs and was not attached before.

        Yields what each descriptor is, as in `Loaded.names`, and the descriptor. Raises `AttachError`, `KernelError`.
        """
        for layer in sorted({layer for layer, _ in self._taken} - self._attached):
            label = f"{FUNCTION}.{layer:x}" if layer else FUNCTION
            program = self._load(layer)
            try:
                link = bpf.raw_tracepoint_open(program, "sys_enter")
            except OSError as error:
                os.close(program)
                raise AttachError(f"attaching {label} to sys_enter", error.errno or 0) from error
            self._attached.add(layer)
            yield f"program:{label}", program
            yield f"link:{label}", link

    def _tell(self) -> None:
        bpf.update(self._wanted, ONLY, bytes(self._layers))


def _indexes(numbers: Numbers) -> list[int]:
    return [*numbers.native, *(SYSCALLS + each for each in numbers.ia32)]


def _slot(layer: int, index: int) -> bytes:
    return WORD.encode(layer * 2 * SYSCALLS + index)
