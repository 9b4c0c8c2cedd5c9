"""The kernel's symbols as /proc/kallsyms has them: names of addresses, and where functions begin and end."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

KALLSYMS = Path("/proc/kallsyms")
_TEXT = frozenset(b"tTwW")
_KIND, _NAME = 17, 19
"""Where a line has them: behind the 16 digits of the address."""
_FUNCTION = re.compile(rb"^([0-9a-f]+) [tTwW] ", re.MULTILINE)
_FARTHEST = 1 << 20
"""No function is longer: what lies farther behind a symbol is not its."""


def addresses(names: Collection[str], kallsyms: Path = KALLSYMS) -> Mapping[str, tuple[int, ...]]:
    """Addresses by name, for those that the kernel has: several where it has several of one name.

    A symbol of a module is named `module:symbol`. Of variables a kernel without CONFIG_KALLSYMS_ALL lists none. All
    addresses are 0 where kernel.kptr_restrict hides them.
    """
    wanted = frozenset(names)
    found: dict[str, list[int]] = {}
    for match in _named({each.rpartition(":")[2] for each in wanted}, rb"[A-Za-z]", kallsyms.read_bytes()):
        name = f"{match[3].decode()}:{match[2].decode()}" if match[3] else match[2].decode()
        if name in wanted:
            found.setdefault(name, []).append(int(match[1], 16))
    return {name: tuple(each) for name, each in found.items()}


def _named(names: Collection[str], kinds: bytes, text: bytes) -> Iterator[re.Match[bytes]]:
    """The lines of these symbols: address, name, module. Bytes are searched, since there are some 200,000 lines."""
    either = b"|".join(re.escape(each.encode()) for each in names)
    pattern = rb"^([0-9a-f]+) " + kinds + rb" (" + either + rb")(?:\t\[([^]\n]+)\])?$"
    return re.finditer(pattern, text, re.MULTILINE)


def functions(names: Collection[str], kallsyms: Path = KALLSYMS) -> Mapping[str, range]:
    """Addresses of each of these functions of the kernel, up to the next one.

    An empty range where they are not known, or where the kernel has several of that name.
    """
    text = kallsyms.read_bytes()
    found: dict[str, range] = {}
    several: set[str] = set()
    for match in _named(names, rb"[tTwW]", text):
        name, start = match[2].decode(), int(match[1], 16)
        if match[3]:
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
        with place.open("rb") as lines:
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
