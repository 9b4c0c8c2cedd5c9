"""What system calls pass, held against names and against each other, without a baseline: for `krie integrity`."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from krie import Check, Difference, KernelMemory, Symbols

from . import gates
from .derive import SYMBOLS, Derivation
from .derived import Derived
from .events import DISPATCH, ENTRY, HANDLER, IDT, POINTER, TABLE
from .explain import MODULES_RANGE
from .explained import Causes
from .kallsyms import KALLSYMS, Kallsyms
from .modules import ranges
from .numbers import call_of
from .pieces import Piece
from .pointers import SHIPPED, Pointers
from .slots import BYTES

_NO_NAMES = "which number leads to which jump of a switch; code on the way there, of which only the boot image tells"
_NO_TYPES = (
    "pointers of variables that are written, which lead to memory that is allocated: what lies there may be data; "
    "pointers that were exchanged for others of the kernel's functions: the boot image tells them"
)


def check(memory: KernelMemory, progress: Callable[[str], None]) -> Iterable[Check]:
    """One look. Raises `KernelError`, `OSError`."""
    progress("following system calls ...")
    symbols = Kallsyms((*SYMBOLS, *SHIPPED), KALLSYMS)
    derived = Derivation(symbols, memory).run(SHIPPED)
    pointers = Pointers(symbols, derived.text, ranges())
    found = _Found(derived, Symbols(place=KALLSYMS), pointers.is_listed)
    unknown = [f"{each}, which this kernel does not tell" for each in derived.unknown]
    kinds: dict[int, list[Piece]] = {}
    for each in derived.pieces:
        kinds.setdefault(DISPATCH if each.where == ENTRY and each.sites else each.where, []).append(each)
    passed = [*kinds.get(TABLE, ()), *kinds.get(DISPATCH, ()), *kinds.get(HANDLER, ())]
    yield _made(
        "system calls",
        passed,
        "handlers' names, and tables and switches with each other",
        found.of_system_calls(passed),
        (*unknown, _NO_NAMES),
        found.causes,
    )
    yield _made("interrupts", kinds.get(IDT, []), "where the kernel lies", found.of_gates(kinds.get(IDT, [])))
    tables = kinds.get(POINTER, [])
    absent = [each for each in SHIPPED if not symbols.address(each)]
    which = ", ".join(absent) if len(absent) < len(SHIPPED) else "all of them"
    limits = [f"tables of functions: this kernel has none of these, or does not tell: {which}"] if absent else []
    reference = "where the kernel and its modules lie"
    yield _made("tables of functions", tables, reference, found.of_pointers(tables), (*limits, _NO_TYPES))


def _made(
    name: str,
    pieces: Iterable[Piece],
    reference: str,
    differences: Iterable[Difference],
    limits: Iterable[str] = (),
    causes: Counter[str] | None = None,
) -> Check:
    size, told = sum(len(each.expected) for each in pieces), tuple(differences)
    return Check(name, size, reference if size else "", dict(causes or {}), told, not_looked_at=tuple(limits))


class _Found:
    """Differences of what was derived, with names."""

    def __init__(self, derived: Derived, symbols: Symbols, is_listed: Callable[[int], bool]) -> None:
        self._derived, self._symbols, self._is_listed = derived, symbols, is_listed
        self._since = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._lists = Causes()
        self.causes: Counter[str] = Counter()
        """Of what differs legally."""

    def of_system_calls(self, pieces: Iterable[Piece]) -> Iterator[Difference]:
        for each in pieces:
            if each.where == TABLE:
                yield from self._slots(each)
            elif each.where == HANDLER:
                yield from self._handler(each)
            else:
                yield from self._jumps(each)
        for missing in self._derived.missing:
            where = self._name(missing.start).partition("+")[0]
            if missing.where == TABLE:
                where = next(each.name for each in self._derived.pieces if each.address == missing.start)
            place = f"{where}: nothing leads to {self._derived.names[missing.handler]}"
            yield Difference(missing.start, place, f"{missing.handler:x}", "")

    def of_gates(self, pieces: Iterable[Piece]) -> Iterator[Difference]:
        for piece in pieces:
            for each in piece.taken or ():
                to = gates.leads_to(piece.expected[each.start : each.stop])
                place = f"{piece.name}[{piece.number + each.start // gates.BYTES}]"
                yield Difference(piece.address + each.start, place, "", f"{to:x}", self._name(to))

    def of_pointers(self, pieces: Iterable[Piece]) -> Iterator[Difference]:
        for piece in pieces:
            for word in piece.wrong:
                (now,) = struct.unpack_from("=Q", piece.expected, BYTES * word)
                place = f"{piece.name}+{piece.offset + BYTES * word:#x}"
                yield Difference(piece.address + BYTES * word, place, "", f"{now:x}", self._name(now))

    def _slots(self, piece: Piece) -> Iterator[Difference]:
        taken = {each.start // BYTES for each in piece.taken or ()}
        for word in piece.wrong:
            (should,) = struct.unpack_from("=Q", piece.expected, BYTES * word)
            now = self._derived.slots[piece.address + BYTES * word]
            call = call_of(self._derived.names[should]) if word not in taken else ""
            place = f"{piece.name}[{piece.number + word}]" + (f", {call}" if call else "")
            was = f"{should:x}" if call else ""
            yield Difference(piece.address + BYTES * word, place, was, f"{now:x}", self._name(now))

    def _jumps(self, piece: Piece) -> Iterator[Difference]:
        for each in piece.taken or ():
            code, address = piece.expected[each.start : each.stop], piece.address + each.start
            (relative,) = struct.unpack("=i", code[-4:])
            to = address + len(code) + relative
            number = next((site.number for site in piece.sites if site.offset == each.start), -1)
            place = f"{piece.name}+{piece.offset + each.start:#x}" + (f", number {number}" if number >= 0 else "")
            yield Difference(address, place, "", code.hex(), self._name(to))

    def _handler(self, piece: Piece) -> Iterator[Difference]:
        if not piece.wrong:
            return
        if cause := self._lists.of(piece.address + BYTES * piece.wrong[0], piece.name, self._since):
            self.causes[cause] += 1
            return
        yield Difference(piece.address, piece.name, "", piece.expected[:16].hex(), self._jump(piece))

    def _jump(self, piece: Piece) -> str:
        """Where the jump leads that a handler begins with."""
        begin = piece.expected.find(b"\xe9")
        if not 0 <= begin <= BYTES:
            return ""
        (relative,) = struct.unpack_from("=i", piece.expected, begin + 1)
        return self._name(piece.address + begin + 5 + relative)

    def _name(self, address: int) -> str:
        """What lies there. Behind a listed module's last function another one may hide."""
        if address in MODULES_RANGE and not self._is_listed(address):
            return f"{address:#x}, which is nobody's"
        return self._derived.names.get(address, "") or str(self._symbols.find(address) or f"{address:#x}")
