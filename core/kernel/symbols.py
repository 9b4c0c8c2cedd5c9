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
from itertools import accumulate
from typing import NamedTuple

from ..kernel_files import AnyFile, KernelFile
from .modules import tag_of

KALLSYMS = KernelFile("/proc/kallsyms")
_TEXT = frozenset((b"t", b"T", b"w", b"W"))
_DIGITS, _KIND, _NAME = 16, slice(17, 18), 19
"""Of a line: how many are the address, and where the others begin."""
_PIECE = 1 << 16
_FUNCTION = re.compile(rb"^([0-9a-f]+) [tTwW] ", re.MULTILINE)
_UNUSUAL = re.compile(rb"\n(?!\Z|[0-9a-f]+ \S [^\t\n]+\t\[[!-Z^-~]+\](?:\n|\Z))")
_OF_A_MODULE = re.compile(
    rb"^([0-9a-f]+ \S [^\t\n]+)\t\[(.*?)\](?:\n(?=[0-9a-f]+ \S )|\n?\Z)", re.DOTALL | re.MULTILINE
)
_FARTHEST = 1 << 20
"""No function is longer: what lies farther behind a symbol is not its."""

_read: ContextVar[dict[AnyFile, bytes] | None] = ContextVar("read", default=None)
os.register_at_fork(after_in_child=lambda: _read.set(None))  # a child that lives on would never see new ones


@contextmanager
def read_once() -> Iterator[None]:
    """Within, the symbols are read once for all who ask: the kernel prints each of some 200,000 lines again each time.

    Takes 5 to 15 MB for as long. What comes and goes with modules is as old as the first who asked. What is forked
    meanwhile reads them itself.
    """
    before = _read.set({})
    try:
        yield
    finally:
        _read.reset(before)


def kallsyms_text(kallsyms: AnyFile = KALLSYMS) -> bytes:
    """The kernel's symbols: all lines of the file, within a start as they were first read. Raises `OSError`.

    Each is whole, and all of visible ASCII, whatever modules are called: see `krie.kernel.modules.tag_of`.
    """
    known = _read.get()
    if known is None:
        return _whole(kallsyms.read_bytes())
    if kallsyms not in known:
        known[kallsyms] = _whole(kallsyms.read_bytes())
    return known[kallsyms]


def _whole(text: bytes) -> bytes:
    """The same with names of modules that break no line: else one could forge a symbol of the kernel's by its name."""
    if (first := text.find(b"\t[")) < 0:
        return text
    begin = text.rfind(b"\n", 0, first) + 1  # the kernel lists its own before those of modules
    if _UNUSUAL.search(text, begin - 1) is None if begin else _UNUSUAL.search(b"\n" + text) is None:
        return text
    return text[:begin] + b"".join(
        b"%s\t[%s]\n" % (each[1], tag_of(each[2])) for each in _OF_A_MODULE.finditer(text, begin)
    )


def _pieces(kallsyms: AnyFile) -> Iterator[bytes]:
    """Some lines at a time, which takes little memory unless it is read once for all. Raises `OSError`."""
    if _read.get() is not None:
        yield from _cut(kallsyms_text(kallsyms))
        return
    rest = b""
    with kallsyms.open("rb") as file:
        while piece := file.read(_PIECE):
            rest += piece
            if b"\t[" in rest:  # from here on they are those of modules
                yield from _cut(_whole(rest + file.read()))
                return
            end = rest.rfind(b"\n") + 1
            yield rest[:end]
            rest = rest[end:]
    yield rest


def _cut(text: bytes) -> Iterator[bytes]:
    begin = 0
    while begin < len(text):
        end = text.find(b"\n", begin + _PIECE) + 1 or len(text)
        yield text[begin:end]
        begin = end


def addresses(names: Collection[str], kallsyms: AnyFile = KALLSYMS) -> Mapping[str, tuple[int, ...]]:
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


def functions(names: Collection[str], kallsyms: AnyFile = KALLSYMS) -> Mapping[str, range]:
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

    def __init__(self, wanted: Iterable[str] = (), place: AnyFile = KALLSYMS) -> None:
        """Read them. `wanted`: names that are not functions. Where the kernel hides addresses, nothing is known."""
        self._asked = {each.encode() for each in wanted}
        self._place = place
        self._read_all()

    def _read_all(self) -> None:
        self._known: dict[str, int] = {}
        self._own_bytes, others = 0, bytearray()

        def own() -> Iterator[bytes]:
            for piece in _pieces(self._place):
                end = 0 if others else _end_of_own(piece)
                self._own_bytes += end
                others.extend(piece[end:])
                for name in self._asked:
                    if (at := piece.rfind(b" %s\n" % name)) >= 0:
                        self._known[name.decode()] = int(piece[at + 1 - _NAME : at + 1 - _NAME + _DIGITS], 16)
                yield piece[:end]

        self._own = _Table.of(own())
        self._others = _Table.of((bytes(others),))

    def renew(self) -> None:
        """Read again what comes and goes: functions of modules, of BPF, of ftrace. Raises `OSError`.

        The kernel's own stay where they are, and come first in the file: to print and read them takes eight times as
        long as the others. Where they were hidden, they may not be now.
        """
        if not self._own.addresses:
            self._read_all()
            return
        with self._place.open("rb") as file:
            file.seek(self._own_bytes)
            text = _whole(file.read())
        self._others = _Table.of((text,))

    def __len__(self) -> int:
        """How many functions are known; 0 where the kernel hides them."""
        return len(self._own.addresses) + len(self._others.addresses)

    def address(self, name: str) -> int:
        """Of one of the wanted symbols; 0 where it is not there or hidden."""
        return self._known.get(name, 0)

    def find(self, address: int) -> Symbol | None:
        """The function that an address lies in; None where there is none near before it."""
        found = filter(None, (self._own.find(address), self._others.find(address)))
        return min(found, key=lambda each: each.offset, default=None)

    def names(self, address: int) -> frozenset[str]:
        """All names of the function that begins here; none where none does."""
        return self._own.at(address) | self._others.at(address)


def _end_of_own(piece: bytes) -> int:
    """Bytes of a piece before the first line that is not the kernel's own."""
    first = piece.find(b"\t[")
    return len(piece) if first < 0 else piece.rfind(b"\n", 0, first) + 1


class _Table(NamedTuple):
    """Functions, sorted by their addresses once they are together."""

    addresses: array[int]
    starts: array[int]
    """Where in `names` the name begins."""
    names: bytes

    @classmethod
    def of(cls, pieces: Iterable[bytes]) -> _Table:
        """Of some lines at a time. The kernel's own are in their order already, unlike those of modules."""
        addresses, starts, names = array("Q"), array("L"), bytearray()
        for piece in pieces:
            lines = [each for each in piece.split(b"\n") if each[_KIND] in _TEXT]
            addresses.frombytes(bytes.fromhex(b"".join([each[:_DIGITS] for each in lines]).decode()))
            found = [each[_NAME:] + b"\n" for each in lines]
            starts.extend(accumulate(map(len, found[:-1]), initial=len(names)) if found else ())
            names += b"".join(found)
        addresses.byteswap()
        if not any(addresses):  # kernel.kptr_restrict hides them
            return cls(array("Q"), array("L"), b"")
        order = sorted(range(len(addresses)), key=addresses.__getitem__)
        in_order = array("Q", map(addresses.__getitem__, order))
        return cls(in_order, array("L", map(starts.__getitem__, order)), bytes(names))

    def find(self, address: int) -> Symbol | None:
        """What an address lies in."""
        index = bisect_right(self.addresses, address) - 1
        if index < 0 or address - self.addresses[index] >= _FARTHEST:
            return None
        first = bisect_left(self.addresses, self.addresses[index])
        # Of several names the last by the alphabet, which is seldom one with underscores before it.
        name, _, module = max(map(self._line, range(first, index + 1))).partition("\t")
        return Symbol(name, address - self.addresses[index], module[1:-1])

    def at(self, address: int) -> frozenset[str]:
        """Names of what begins there."""
        first, last = bisect_left(self.addresses, address), bisect_right(self.addresses, address)
        return frozenset(self._line(each).partition("\t")[0] for each in range(first, last))

    def _line(self, index: int) -> str:
        start = self.starts[index]
        return self.names[start : self.names.index(b"\n", start)].decode(errors="backslashreplace")
