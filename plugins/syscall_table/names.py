"""Names for what differs: in which function or variable it lies, and whose code it leads to."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from krie import KernelError, KernelMemory, Symbols, kallsyms_text

from .comparison import Area, Wrong
from .entry import Entry
from .explain import MODULES_RANGE, target
from .kallsyms import KALLSYMS, named
from .modules import Module

LIST = "list"
"""The section of an entry in one of the kernel's lists of functions."""
_SHOWN = 16
_CALL, _JUMP = 0xE8, 0xE9
_POINTER = 8
_DATA = re.compile(rb"^([0-9a-f]+) [rRdD] ([^\t\n]+)(\t\[[^]\n]+\])?$", re.MULTILINE)
_FARTHEST = 1 << 16
"""No variable that holds pointers is longer."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Bytes that differ without a legal cause, with names."""

    section: str
    address: int
    length: int
    was: bytes
    now: bytes
    digest: bytes
    """Of all bytes there now."""
    place: str
    module: str
    """Whose code it is; empty for the kernel's own."""
    target: int
    target_symbol: str
    owner: str
    reference: str = ""
    """See `Area.reference`."""


class Names:
    """The names of addresses, as the kernel listed them at one moment."""

    def __init__(
        self,
        memory: KernelMemory,
        text: range,
        symbols: Symbols,
        modules: Collection[Module],
        programs: Iterable[Area],
    ) -> None:
        """`programs`: code of BPF, which has names of its own."""
        self._memory, self._text, self._symbols = memory, text, symbols
        self._modules, self._programs = modules, tuple(programs)
        self._variables: list[tuple[int, str]] | None = None

    def of_entry(self, entry: Entry) -> Difference:
        """A function in a list that is nobody's."""
        now = entry.function.to_bytes(8, "little")
        return Difference(
            LIST, entry.address, 8, b"", now, now, entry.list, "", entry.function, self._name(entry.function), "?"
        )

    def of_function(self, address: int) -> tuple[str, str]:
        """Its symbol, and whose it is."""
        return self._name(address), self._owner(address)

    def of_bytes(self, wrong: Wrong) -> Difference:
        """Bytes that nothing explains."""
        to = self._target(wrong)
        place, module = self._place(wrong)
        return Difference(
            wrong.section,
            wrong.address,
            len(wrong.now),
            wrong.was[:_SHOWN],
            wrong.now[:_SHOWN],
            hashlib.blake2b(wrong.now, digest_size=16).digest(),
            place or f"{wrong.address:#x}",
            module,
            to,
            self._name(to),
            self._owner(to) if to else "",
            wrong.reference,
        )

    def _place(self, wrong: Wrong) -> tuple[str, str]:
        """Its name, empty where it has none, and the module that has it."""
        if area := next((each for each in self._programs if each.has(wrong.address)), None):
            return f"{area.name}+{wrong.address - area.start:#x}", ""
        if wrong.section == "rodata":
            name = self._variable(wrong.address)
            return name, name.partition(" [")[2].rstrip("]") or self._module(wrong.address)
        found = self._symbols.find(wrong.address)
        return str(found or ""), found.module if found is not None else ""

    def _variable(self, address: int) -> str:
        """The last one that begins before; empty where this kernel does not tell of variables."""
        if self._variables is None:  # read where something differs, which is seldom
            found = _DATA.finditer(kallsyms_text(KALLSYMS))
            self._variables = sorted(
                (
                    int(each[1], 16),
                    each[2].decode(errors="backslashreplace") + "%s" + (each[3] or b"").decode().replace("\t", " "),
                )
                for each in found
            )
        index = bisect_right(self._variables, (address, "\U0010ffff")) - 1
        if index < 0 or address - self._variables[index][0] >= _FARTHEST:
            return ""
        start, name = self._variables[index]
        before, _, behind = name.partition("%s")
        return f"{before}+{address - start:#x}{behind}"

    def _target(self, wrong: Wrong) -> int:
        """Where a pointer, or a jump or call, leads that lies there, or of which these bytes are part; 0: nowhere."""
        data = wrong.section == "rodata"
        last = wrong.address if data else wrong.address - 4
        for site in [wrong.address // _POINTER * _POINTER] if data else range(wrong.address, last - 1, -1):
            try:
                code = self._memory.read(site, _POINTER if data else 5)
            except KernelError:
                return 0
            if not data and (code[0] not in (_CALL, _JUMP) or site + 5 < wrong.address + min(len(wrong.now), 4)):
                continue
            to = int.from_bytes(code, "little") if data else target(code, site)
            if to in self._text or to in MODULES_RANGE:
                return to
        return 0

    def _module(self, address: int) -> str:
        return next((each.name for each in self._modules if each.start <= address < each.start + each.size), "")

    def _owner(self, address: int) -> str:
        if address in self._text:
            return "kernel"
        if name := self._module(address):
            return name
        return named(self._symbols, address, "")[1] or "?"

    def _name(self, address: int) -> str:
        return named(self._symbols, address, self._module(address))[0] if address else ""
