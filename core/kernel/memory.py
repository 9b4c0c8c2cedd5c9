"""Reading the running kernel's memory by address, for comparisons that no event can tell.

The program that does so is a dozen instructions, written down here: it needs neither a compiler nor the kernel's types,
so that `krie integrity` works where nothing else does. It copies into a map that is mapped here.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

from ..errors import KernelError, LockedDownError, ProgramLoadError
from ..events.agreed import SECRET_ARGUMENT
from ..privileges import locked_down
from . import bpf
from .counting import instruction

PIECE_BYTES = 1 << 20
"""What one run reads at most. 4 KiB a run took 45 ms for 18.9 MB in Python, 1 MiB takes 6."""
_F_MMAPABLE = 1 << 10
_LOOKUP_ELEM, _PROBE_READ_KERNEL = 1, 113
_READER = "bpf_probe_read_kernel"
_HELPS = (
    "Neither krie run nor krie doctor nor krie integrity can do without: boot with lockdown=integrity, or without; no "
    "kernel that runs can be unlocked"
)


class KernelMemory:
    """Reads, and never writes. What is read may change meanwhile: nothing in the kernel is locked."""

    def __init__(
        self,
        program: int,
        window: mmap.mmap | bytearray,
        run: Callable[[int, tuple[int, ...]], int] = bpf.test_run,
    ) -> None:
        """`window`: where the program copies to when `run` runs it, which returns 0 or a negative errno."""
        self._program, self._window, self._run = program, window, run
        self.spare: tuple[int, int, int] | None = None
        """Descriptors of a second program and its map, and its secret, for `memory_of` in a process of its own."""

    @property
    def program(self) -> int:
        """Descriptor of the program that reads."""
        return self._program

    def read(self, address: int, size: int) -> bytes:
        """So many bytes. Raises `KernelError` where any of them cannot be read, as under lockdown=confidentiality."""
        return b"".join(piece for _, piece in self.pieces(address, size))

    def pieces(self, address: int, size: int) -> Iterator[tuple[int, bytes]]:
        """The same by pieces that end at multiples of their largest size: offset and bytes of each."""
        start = address
        while start < address + size:
            count = min(len(self._window) - start % len(self._window), address + size - start)
            if self._run(self._program, (start, count)):
                raise KernelError(f"reading kernel memory at {start:#x}", errno.EFAULT)
            yield start - address, bytes(self._window[:count])
            start += count

    def number(self, address: int, size: int = 8) -> int:
        """An unsigned integer. Raises `KernelError`."""
        return int.from_bytes(self.read(address, size), "little")


def open_memory(stack: ExitStack) -> tuple[KernelMemory, int]:
    """Load the program; `stack` unloads it. Also the descriptor of its map, to be guarded.

    Raises `KernelError`: `LockedDownError` where the kernel lets nobody read.
    """
    memory, answer, _ = _open(stack)
    return memory, answer


def _open(stack: ExitStack, name: str = "krie_read") -> tuple[KernelMemory, int, int]:
    """The same with the secret. `name`: of the program."""
    secret = int.from_bytes(os.urandom(8), "little")
    bpf.allow_locked_memory()
    shape = bpf.MapShape(bpf.MapType.ARRAY, 4, PIECE_BYTES, 1, _F_MMAPABLE, "krie_window")
    answer = bpf.map_of_shape(shape)
    stack.callback(os.close, answer)
    bpf.freeze(answer)  # nobody else maps it writable, and so has us read what is not there
    program = _load(name, _reading(answer, secret))
    stack.callback(os.close, program)
    memory, window = memory_of(program, answer, secret)
    stack.callback(window.close)
    return memory, answer, secret


def _load(name: str, instructions: bytes) -> int:
    """Descriptor of the program that reads. The verifier would only say that it knows no such helper."""
    try:
        return bpf.prog_load(bpf.ProgramSpec(name, bpf.ProgType.RAW_TRACEPOINT), instructions)
    except ProgramLoadError as error:
        mode = locked_down()
        if mode != "confidentiality" and _READER not in error.log:
            raise
        why = "it is locked down (confidentiality)"
        if mode != "confidentiality":  # or nobody can tell, as where the kernel has no securityfs
            why += ", or a security module forbids it"
        raise LockedDownError("the kernel refuses BPF programs to read its memory", hint=f"{why}. {_HELPS}") from error


def open_memories(stack: ExitStack) -> tuple[KernelMemory, tuple[int, int]]:
    """The same with a spare; the descriptors are those of both maps. Raises `KernelError`."""
    memory, window = open_memory(stack)
    other, spare_window, secret = _open(stack, "krie_read_spare")
    memory.spare = (other.program, spare_window, secret)
    return memory, (window, spare_window)


def memory_of(program: int, answer: int, secret: int) -> tuple[KernelMemory, mmap.mmap]:
    """Read by a program that is loaded, with the mapping of its map; the program reads for who knows its secret.

    Whoever else ran it meanwhile would have us believe that his memory is what we asked for. Raises `KernelError`.
    """
    try:
        window = mmap.mmap(answer, PIECE_BYTES, mmap.MAP_SHARED, mmap.PROT_READ)
    except OSError as error:
        raise KernelError("mapping the map of krie_read", error.errno or 0) from error
    return KernelMemory(program, window, partial(bpf.test_run, secret=secret)), window


def _reading(array_map: int, secret: int) -> bytes:
    """Instructions of a program that copies kernel memory into an element; its arguments are address and size."""
    low, high = struct.unpack("=ii", struct.pack("=Q", secret))
    return b"".join(
        (
            instruction(0xBF, 0x16),  # r6 = r1, the context
            instruction(0x79, 0x61, 8 * SECRET_ARGUMENT, 0),  # r1 = the caller's secret
            instruction(0x18, 0x02, 0, low) + instruction(0, 0, 0, high),  # r2 = the secret
            instruction(0x5D, 0x21, 13, 0),  # if r1 != r2 skip to the failure
            instruction(0x62, 0x0A, -4, 0),  # *(u32 *)(r10 - 4) = 0
            instruction(0xBF, 0xA2),  # r2 = r10
            instruction(0x07, 0x02, 0, -4),  # r2 += -4
            instruction(0x18, 0x11, 0, array_map) + instruction(0),  # r1 = map
            instruction(0x85, 0, 0, _LOOKUP_ELEM),  # r0 = bpf_map_lookup_elem(r1, r2)
            instruction(0x15, 0x00, 6, 0),  # if r0 == 0 skip to the failure
            instruction(0xBF, 0x01),  # r1 = r0
            instruction(0x79, 0x62, 8, 0),  # r2 = size
            instruction(0x79, 0x63, 0, 0),  # r3 = address
            instruction(0x25, 0x02, 2, PIECE_BYTES),  # if r2 > PIECE_BYTES skip to the failure
            instruction(0x85, 0, 0, _PROBE_READ_KERNEL),  # r0 = bpf_probe_read_kernel(r1, r2, r3)
            instruction(0x95),
            instruction(0xB7, 0, 0, -errno.EINVAL),
            instruction(0x95),
        )
    )
