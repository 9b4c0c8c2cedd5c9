"""Ways in which the test module leads a system call away from the kernel, and where each is done."""

import os
import struct
from collections.abc import Callable
from typing import NoReturn

from krie.kernel.syscalls import numbers_of
from krie.plugins.syscall_table.switch import Jump, read_switch
from krie.testing.module import address_of

from .kernel_memory import function_bytes, read_memory

MODULE = "krie_test"
RARE = "sysfs"
"""A system call that nobody makes meanwhile."""
TRIGGER = {"force": "timer", "alias": "alias", "poke": "text_poke"}
"""What finds a change, by how it is made."""
SLOT = 8
"""Bytes of an address in a table."""
_SLOTS = 400
"""Of any table, at least."""


def number_of(call: str) -> int:
    """The number of a system call of 64-bit callers."""
    return numbers_of(call).native[0]


def jump_to(handler: str, lacks: Callable[[str], NoReturn]) -> int:
    """Where the switch leads to a handler."""
    try:
        address_of("x64_sys_call")
    except KeyError:
        lacks("switch: this kernel dispatches by its table")
    return _jump("x64_sys_call", handler).address


def _jump(switch: str, handler: str) -> Jump:
    start, code = function_bytes(switch)
    (jump,) = read_switch(start, code, {address_of(handler)}, range(0)).jumps
    return jump


def of_other_callers(abi: str, lacks: Callable[[str], NoReturn]) -> tuple[str, int, bytes]:
    """Where a rare system call of 32-bit or x32 callers is led to its handler, and bytes that lead it elsewhere."""
    handler = {"ia32": f"__ia32_sys_{RARE}", "x32": f"__x64_sys_{RARE}"}[abi]
    elsewhere = address_of("krie_test_wrapper")
    try:
        table = address_of(f"{abi}_sys_call_table")
    except KeyError:
        table = 0
    if table:
        slots = struct.unpack(f"={_SLOTS}Q", read_memory(table, SLOT * _SLOTS))
        return "table", table + SLOT * slots.index(address_of(handler)), struct.pack("=Q", elsewhere)
    try:
        address_of(f"{abi}_sys_call")
    except KeyError:
        lacks(f"{abi}_callers: this kernel has none, or does not tell where it dispatches for them")
    jump = _jump(f"{abi}_sys_call", handler)
    opcode = read_memory(jump.address, jump.length - 4)
    return "dispatch", jump.address, opcode + struct.pack("=i", elsewhere - jump.address - jump.length)


def at_start(words: str, *numbers: int) -> str:
    """The test module's parameter by which it does so in its init function."""
    return f'diverted="{" ".join([*words.split()[1:], *(f"{each:x}" for each in numbers)])}"'


def diversion(what: str, how: str, lacks: Callable[[str], NoReturn]) -> tuple[str, int, int, int]:
    """Words of a command that leads a rare system call to the module: where, what it leads to now, and text_poke()."""
    if (what, how) == ("table", "poke") and tuple(map(int, os.uname().release.split(".")[:2])) < (5, 13):
        lacks("poked_data: text_poke() of this kernel finds no page of data in large ones (c0eb315ad971)")
    handler = f"__x64_sys_{RARE}"
    address = {
        "table": lambda: address_of("sys_call_table") + SLOT * number_of(RARE),
        "jump": lambda: jump_to(handler, lacks),
        "tail": lambda: jump_to(handler, lacks),
        "inline": lambda: address_of(handler),
    }[what]()
    return f"divert {what} {how}", address, address_of(handler), address_of("text_poke")
