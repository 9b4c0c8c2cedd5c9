"""The running kernel's code, for the derivation."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

from krie import ConfigError, KernelError

from .boot_image import build_id
from .derivation import Code

_FUNCTIONS = frozenset(b"tTwW")
_KIND, _NAME = 17, 19  # where a line of kallsyms has them
_NOTES, _KALLSYMS, _KCORE = Path("/sys/kernel/notes"), Path("/proc/kallsyms"), Path("/proc/kcore")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_LOADED = 1  # PT_LOAD
Read = Callable[[int, int], bytes]
"""Memory of the kernel: address, size. Raises `KernelError`."""


def running_build_id(notes: Path = _NOTES) -> str:
    """Raises `ConfigError` where the kernel tells none."""
    try:
        return build_id(notes.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(str(notes), f"holds no build id: {error}") from error


def running_code(read: Read, kallsyms: Path = _KALLSYMS) -> Code:
    """Takes some 50 ms to read, and memory as much as the kernel's text and data have. Raises `KernelError`."""
    symbols: list[tuple[int, str]] = []
    known: dict[bytes, int] = {}
    wanted = (b"_stext", b"_etext", b"__start_rodata", b"__end_rodata", b"_sdata", b"_edata")
    with kallsyms.open("rb") as lines:
        for line in lines:
            name = line[_NAME:-1]
            if b"\t" in name:
                continue  # of a module: never believed
            if line[_KIND] in _FUNCTIONS:
                symbols.append((int(line[: _KIND - 1], 16), name.decode()))
            if name in wanted:
                known[name] = int(line[: _KIND - 1], 16)
    start, end = known.get(b"_stext", 0), known.get(b"_etext", 0)
    if not start or not end:
        raise KernelError("finding the kernel's code", 0, "kernel.kptr_restrict hides it")
    data = [
        read(known[first], known[last] - known[first])
        for first, last in ((b"__start_rodata", b"__end_rodata"), (b"_sdata", b"_edata"))
        if known.get(first) and known.get(last)
    ]
    return Code(read(start, end - start), start, symbols, data)


class Kcore:
    """/proc/kcore, for commands that run without an agent."""

    def __init__(self, place: Path = _KCORE) -> None:
        """Raises `KernelError` where there is none."""
        try:
            self._descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            hint = "this kernel has no /proc/kcore (CONFIG_PROC_KCORE): use --vmlinux"
            raise KernelError(f"opening {place}", error.errno or 0, hint) from error
        header = os.pread(self._descriptor, 64, 0)
        (table,) = struct.unpack_from("<Q", header, 0x20)
        size, count = struct.unpack_from("<HH", header, 0x36)
        segments = os.pread(self._descriptor, size * count, table)
        rows = [_SEGMENT.unpack_from(segments, size * index) for index in range(count)]
        self._segments = [(start, length, at) for type_, _, at, start, _, length, _, _ in rows if type_ == _LOADED]

    def read(self, address: int, size: int) -> bytes:
        """Raises `KernelError`."""
        for start, length, at in self._segments:
            if start <= address and address + size <= start + length:
                pieces, got = [], 0
                while got < size:
                    piece = os.pread(self._descriptor, size - got, at + address - start + got)
                    if not piece:
                        break
                    pieces.append(piece)
                    got += len(piece)
                if got == size:
                    return b"".join(pieces)
        raise KernelError(f"reading /proc/kcore at {address:#x}", 14)

    def close(self) -> None:
        """Release the file."""
        os.close(self._descriptor)
