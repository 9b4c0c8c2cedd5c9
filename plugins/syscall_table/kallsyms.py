"""The kernel's symbols, for what is derived of them once: by name, with where they end, and handlers by address."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from krie import AnyFile, KernelFile, Symbols, kallsyms_text

KALLSYMS = KernelFile("/proc/kallsyms")
CODE = (
    "_text _stext _etext __start_rodata __end_rodata __start_ro_after_init __end_ro_after_init __start_mcount_loc "
    "__stop_mcount_loc __fentry__ __start___jump_table __stop___jump_table __start_static_call_sites "
    "__stop_static_call_sites"
).split()
"""Symbols between which the kernel's code, read-only data, and what is known of its patching lie."""
_ADDRESS = 16
"""Digits that a line begins with."""
_OF_MODULES = re.compile(rb"^([0-9a-f]+) \w [^\t\n]+\t\[", re.MULTILINE)
_NEAR = 4096
"""Bytes behind a symbol of a module that may still be its own: between two modules' memory lies a page without any."""
_HANDLER = re.compile(rb" (__(?:x64|ia32|x32)_\S*sys_\S+|sys_ni_syscall|__do_sys_\S+)\n")


def all_addresses_in(kallsyms: bytes, names: Collection[str]) -> dict[str, set[int]]:
    """Addresses of the kernel's symbols of these names, of which it may have several each."""
    either = b"|".join(re.escape(each.encode()) for each in names)
    known: dict[str, set[int]] = {}
    for match in re.finditer(rb" (" + either + rb")\n", kallsyms):
        start = kallsyms.rfind(b"\n", 0, match.start()) + 1
        known.setdefault(match[1].decode(), set()).add(int(kallsyms[start : start + _ADDRESS], 16))
    return known


def addresses_in(kallsyms: bytes, names: Collection[str] = CODE) -> Callable[[str], int]:
    """Addresses of the kernel's symbols of these names; 0 for what it does not tell, or has several of."""
    known = all_addresses_in(kallsyms, names).items()
    unique = {name: min(addresses) for name, addresses in known if len(addresses) == 1}
    return lambda name: unique.get(name, 0)


def named(symbols: Symbols, address: int, module: str) -> tuple[str, str]:
    """The function that an address lies in, and whose it is; empty where that is not known.

    `module`: the one that is listed there. Where there is none, the last function of a module before it is another's.
    """
    found = symbols.find(address)
    if found is None or (found.module and found.offset >= _NEAR and not module):
        return "", ""
    return str(found), found.module


class Kallsyms:
    """Those of the kernel itself, but for `has_module_near`. Empty where kernel.kptr_restrict hides them."""

    def __init__(self, names: Collection[str], place: AnyFile = KALLSYMS) -> None:
        """Read the addresses of these names. Raises `OSError`."""
        self._text = kallsyms_text(place)
        either = b"|".join(re.escape(each.encode()) for each in names)
        self._ends: dict[str, int] = {}
        """By name, where in the text its line ends."""
        self._handler_ends: dict[int, int] = {}
        """The same by address."""
        self._addresses: dict[str, int] = {}
        for match in re.finditer(rb" (" + either + rb")\n", self._text):
            name = match[1].decode()
            if (address := self._address_before(match.start())) and name not in self._addresses:
                self._addresses[name], self._ends[name] = address, match.end()

    def address(self, name: str) -> int:
        """Where one of the names lies; 0 where the kernel has none, or hides it."""
        return self._addresses.get(name, 0)

    def extent(self, name: str) -> range:
        """Addresses of one of the names, up to the next symbol: the kernel lists its own by address."""
        start = self.address(name)
        return self._up_to_the_next(start, self._ends[name]) if start else range(0)

    def handlers(self) -> Mapping[int, tuple[str, ...]]:
        """The functions that a system call may lead to, by address, with all their names."""
        found: dict[int, list[str]] = {}
        for match in _HANDLER.finditer(self._text):
            if address := self._address_before(match.start()):
                found.setdefault(address, []).append(match[1].decode())
                self._handler_ends[address] = match.end()
        return {address: tuple(names) for address, names in found.items()}

    def handler(self, address: int) -> range:
        """Addresses of one of the `handlers`, up to the next symbol."""
        return self._up_to_the_next(address, self._handler_ends[address]) if address in self._handler_ends else range(0)

    def has_module_near(self, address: int) -> bool:
        """Whether a function or variable of a module that is listed, or code of BPF, lies here or shortly before."""
        return any(0 <= address - int(each[1], 16) < _NEAR for each in _OF_MODULES.finditer(self._text))

    def _up_to_the_next(self, start: int, position: int) -> range:
        while position < len(self._text):
            following = int(self._text[position : position + _ADDRESS], 16)
            if following > start:
                return range(start, following)
            position = self._text.index(b"\n", position) + 1
        return range(0)

    def _address_before(self, position: int) -> int:
        """Of the line whose name begins behind this blank."""
        start = self._text.rfind(b"\n", 0, position) + 1
        return int(self._text[start : start + _ADDRESS], 16)
