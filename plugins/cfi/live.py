"""The running kernel's code, for the derivation, and where in it functions lie."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Collection, Mapping

from krie import AnyFile, ConfigError, KernelError, KernelFile, build_id, kallsyms_text

from .derivation import Code

_FUNCTIONS = frozenset(b"tTwW")
_KIND, _NAME = 17, 19  # where a line of kallsyms has them
_FUNCTION = re.compile(rb"^([0-9a-f]+) [tTwW] ", re.MULTILINE)
_NOTES, _KALLSYMS, _KCORE = (
    KernelFile("/sys/kernel/notes"),
    KernelFile("/proc/kallsyms"),
    KernelFile("/proc/kcore"),
)
_SEGMENT = struct.Struct("<IIQQQQQQ")
_LOADED = 1  # PT_LOAD
TEXT = ("_stext", "_etext")
_DATA = (("__start_rodata", "__end_rodata"), ("_sdata", "_edata"))
BOUNDS = (*TEXT, *(name for names in _DATA for name in names))
"""Symbols that `Layout` needs."""
Read = Callable[[int, int], bytes]
"""Memory of the kernel: address, size. Raises `KernelError`."""


def running_build_id(notes: AnyFile = _NOTES) -> str:
    """Raises `ConfigError` where the kernel tells none."""
    try:
        return build_id(notes.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(str(notes), f"holds no build id: {error}") from error


def locate(names: Collection[str], begins: Collection[str] = (), kallsyms: AnyFile = _KALLSYMS) -> Mapping[str, range]:
    """Addresses from each of these symbols up to the next function, of those that the kernel itself has once.

    `begins`: all that begin so, too.

    One pass over some 200,000 lines. Raises `KernelError` where kernel.kptr_restrict hides the addresses.
    """
    text = kallsyms_text(kallsyms)
    patterns = [*map(re.escape, sorted(names)), *(re.escape(each) + r"\S*" for each in begins)]
    either = "|".join(patterns).encode()
    found: dict[str, range] = {}
    several = set()
    for match in re.finditer(rb" [A-Za-z] (" + either + rb")\n", text):  # which is faster than one that begins with ^
        name, start = match[1].decode(), int(text[text.rfind(b"\n", 0, match.start()) + 1 : match.start()], 16)
        following = (int(each[1], 16) for each in _FUNCTION.finditer(text, match.end()))
        if name in found:
            several.add(name)
        found[name] = range(start, next((each for each in following if each > start), start))
    if not any(each.start for each in found.values()):
        raise KernelError("finding the kernel's functions", 0, "kernel.kptr_restrict hides them")
    return {name: each for name, each in found.items() if name not in several}


def layout(known: Mapping[str, range]) -> list[range]:
    """The kernel's text and, where they are known, its data, by what `locate` says of BOUNDS. Raises `KernelError`."""

    def between(first: str, last: str) -> range:
        return range(known[first].start, known[last].start) if first in known and last in known else range(0)

    text = between(*TEXT)
    if not text:
        raise KernelError("finding the kernel's code", 0, f"it has no symbols {' and '.join(TEXT)}")
    return [text, *(each for each in (between(*names) for names in _DATA) if each)]


def code_of(read: Read, ranges: list[range], kallsyms: AnyFile = _KALLSYMS) -> Code:
    """Takes memory as much as the kernel's text and data have. `ranges`: what `layout` gives. Raises `KernelError`."""
    symbols: list[tuple[int, str]] = []
    with kallsyms.open("rb") as lines:
        for line in lines:
            name = line[_NAME:-1]
            if b"\t" in name:  # those of modules, which come last, are never believed
                break
            if line[_KIND] in _FUNCTIONS:
                symbols.append((int(line[: _KIND - 1], 16), name.decode()))
    text, *data = ranges
    return Code(read(text.start, len(text)), text.start, symbols, [read(each.start, len(each)) for each in data])


class Kcore:
    """/proc/kcore, for commands that run without an agent."""

    def __init__(self, place: KernelFile = _KCORE) -> None:
        """Raises `KernelError` where there is none."""
        try:
            self._descriptor = place.descriptor()
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
