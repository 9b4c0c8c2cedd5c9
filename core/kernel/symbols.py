"""The kernel's symbols as /proc/kallsyms has them: names of addresses, and where functions begin and end."""

from __future__ import annotations

import os
import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

KALLSYMS = Path("/proc/kallsyms")
_TEXT = frozenset(b"tTwW")
_KIND, _NAME = 17, 19
"""Where a line has them: behind the 16 digits of the address."""
_FUNCTION = re.compile(rb"^([0-9a-f]+) [tTwW] ", re.MULTILINE)
_FARTHEST = 1 << 20
"""No function is longer: what lies farther behind a symbol is not its."""

_read: ContextVar[dict[Path, bytes] | None] = ContextVar("read", default=None)
os.register_at_fork(after_in_child=lambda: _read.set(None))  # a child that lives on would never see new ones


@contextmanager
def read_once() -> Iterator[None]:
    """Within, the symbols are read once for all who ask: the kernel prints each of some 200,000 lines anew each time.

    Takes 5 to 15 MB for as long. What comes and goes with modules is as old as the first who asked. What is forked
    meanwhile reads them itself.
    """
    before = _read.set({})
    try:
        yield
    finally:
        _read.reset(before)


def kallsyms_text(kallsyms: Path = KALLSYMS) -> bytes:
    """The kernel's symbols: all lines of the file, within a start as they were first read. Raises `OSError`."""
    known = _read.get()
    if known is None:
        return kallsyms.read_bytes()
    if kallsyms not in known:
        known[kallsyms] = kallsyms.read_bytes()
    return known[kallsyms]


def _lines(kallsyms: Path) -> BinaryIO:
    """To be read line by line, which takes no memory unless it is read once for all."""
    return kallsyms.open("rb") if _read.get() is None else BytesIO(kallsyms_text(kallsyms))


def addresses(names: Collection[str], kallsyms: Path = KALLSYMS) -> Mapping[str, tuple[int, ...]]:
    """Addresses by name, for those that the kernel has: several where it has several of one name.

    A symbol of a module is named `module:symbol`. Of variables a kernel without CONFIG_KALLSYMS_ALL lists none. All
    addresses are 0 where kernel.kptr_restrict hides them.
    """
    wanted = frozenset(names)
    found: dict[str, list[int]] = {}
    text = kallsyms_text(kallsyms)
    for address, match in _named({each.rpartition(":")[2] for each in wanted}, rb"[A-Za-z]", text):
        name = f"{match[2].decode()}:{match[1].decode()}" if match[2] else match[1].decode()
        if name in wanted:
            found.setdefault(name, []).append(address)
    return {name: tuple(each) for name, each in found.items()}


def _named(names: Collection[str], kinds: bytes, text: bytes) -> Iterator[tuple[int, re.Match[bytes]]]:
    """The lines of these symbols: address, and a match of name and module.

    The pattern begins with a byte and not with the begin of a line: so it is looked for six times as fast.
    """
    either = b"|".join(re.escape(each.encode()) for each in names)
    for match in re.finditer(rb" " + kinds + rb" (" + either + rb")(?:\t\[([^]\n]+)\])?(?:\n|\Z)", text):
        yield int(text[text.rfind(b"\n", 0, match.start()) + 1 : match.start()], 16), match


def functions(names: Collection[str], kallsyms: Path = KALLSYMS) -> Mapping[str, range]:
    """Addresses of each of these functions of the kernel, up to the next one.

    An empty range where they are not known, or where the kernel has several of that name.
    """
    text = kallsyms_text(kallsyms)
    found: dict[str, range] = {}
    several: set[str] = set()
    for start, match in _named(names, rb"[tTwW]", text):
        name = match[1].decode()
        if match[2]:
            continue  # of a module
        if name in found:
            several.add(name)
        # The kernel lists its own symbols by address.
        following = (int(each[1], 16) for each in _FUNCTION.finditer(text, match.end()))
        found[name] = range(start, next((each for each in following if each > start), start))
    return {name: range(0) if name in several else found.get(name, range(0)) for name in names}


@dataclass(frozen=True, slots=True)
class Symbol:
    """What an address lies in."""

    name: str
    offset: int
    module: str
    """Empty for the kernel itself; `bpf` and `ftrace` for code that these made."""

    def __str__(self) -> str:
        """As the kernel writes it."""
        return f"{self.name}+{self.offset:#x}" + (f" [{self.module}]" if self.module else "")


class Symbols:
    """Functions by address, and some other symbols by name. Takes some 35 bytes for each: 4 MiB of a usual kernel."""

    def __init__(self, wanted: Iterable[str] = (), place: Path = KALLSYMS) -> None:
        """Read them. `wanted`: names that are no functions. Where the kernel hides addresses, nothing is known."""
        asked = {each.encode() for each in wanted}
        self._known: dict[str, int] = {}
        addresses, starts, names = array("Q"), array("L"), bytearray(b"\n")
        with _lines(place) as lines:
            for line in lines:
                name = line[_NAME:]  # with the end of the line, which ends it among the others, too
                if line[_KIND] in _TEXT:
                    addresses.append(int(line[: _KIND - 1], 16))
                    starts.append(len(names))
                    names += name
                if name[:-1] in asked:
                    self._known[name[:-1].decode()] = int(line[: _KIND - 1], 16)
        if not any(addresses):  # kernel.kptr_restrict hides them
            addresses, starts, names = array("Q"), array("L"), bytearray(b"\n")
        # The kernel's own are in their order, unlike those of modules.
        order = sorted(range(len(addresses)), key=addresses.__getitem__)
        self._addresses = array("Q", map(addresses.__getitem__, order))
        self._starts = array("L", map(starts.__getitem__, order))
        self._names = bytes(names)

    def __len__(self) -> int:
        """How many functions are known; 0 where the kernel hides them."""
        return len(self._addresses)

    def address(self, name: str) -> int:
        """Of one of the wanted symbols; 0 where it is not there or hidden."""
        return self._known.get(name, 0)

    def find(self, address: int) -> Symbol | None:
        """The function that an address lies in; None where there is none near before it."""
        index = bisect_right(self._addresses, address) - 1
        if index < 0 or address - self._addresses[index] >= _FARTHEST:
            return None
        first = bisect_left(self._addresses, self._addresses[index])
        # Of several names the last by the alphabet, which is seldom one with underscores before it.
        name, _, module = max(map(self._line, range(first, index + 1))).partition("\t")
        return Symbol(name, address - self._addresses[index], module.strip("[]"))

    def names(self, address: int) -> frozenset[str]:
        """All names of the function that begins here; none where none does."""
        first, last = bisect_left(self._addresses, address), bisect_right(self._addresses, address)
        return frozenset(self._line(each).partition("\t")[0] for each in range(first, last))

    def _line(self, index: int) -> str:
        start = self._starts[index]
        return self._names[start : self._names.index(b"\n", start)].decode()
