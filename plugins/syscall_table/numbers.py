"""Numbers of system calls by their handlers' names: what their table is held against, and where its address is hidden
also what stands for it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from krie import numbers_of

from .events import IA32, X32, X64

_PREFIXES = {X64: "__x64_sys_", IA32: "__ia32_(?:compat_)?sys_", X32: "__x(?:64|32)_(?:compat_)?sys_"}
_OTHERWISE = {
    "newstat": "stat",
    "newlstat": "lstat",
    "newfstat": "fstat",
    "newuname": "uname",
    "sendfile64": "sendfile",
    "umount": "umount2",
}
"""Handlers whose names are not those of 64-bit callers' system calls. A handler of that name is of 32-bit callers."""
_NOT_FOR_ALL = frozenset({"set_thread_area", "get_thread_area", "uselib"})
"""Handlers of numbers that 64-bit callers have, and that lead nowhere for them."""


def call_of(handler: str) -> str:
    """The system call's name as its handler has it."""
    return re.sub(r"^__(?:x64|ia32|x32)_(?:compat_)?sys_", "", handler)


def numbers_by_handler(handlers: Mapping[int, tuple[str, ...]], abi: int) -> dict[int, int]:
    """By address; only what is known for sure, which is that of 64-bit callers."""
    if abi != X64:
        return {}
    found: dict[int, int] = {}
    for address, names in handlers.items():
        for name in names:
            match = re.match(_PREFIXES[abi] + r"(\w+)$", name)
            if match is None or match[1] in _OTHERWISE.values():
                continue
            call = _OTHERWISE.get(match[1], match[1])
            native = numbers_of(call).native
            if native and not call.isdigit() and call not in _NOT_FOR_ALL:
                found.setdefault(address, native[0])
    return found


def handlers_by_number(handlers: Mapping[int, tuple[str, ...]], abi: int) -> dict[int, int]:
    """The other way round: only numbers whose handler is known for sure, since no other function claims them."""
    found: dict[int, list[int]] = {}
    for address, number in numbers_by_handler(handlers, abi).items():
        found.setdefault(number, []).append(address)
    return {number: addresses[0] for number, addresses in found.items() if len(addresses) == 1}
