"""What the kernel patches in its own code while it runs, and where: its tables of jump labels and static calls."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from krie import KernelMemory

_MASK = (1 << 64) - 1
_OF_CALLS = re.compile(rb"^([0-9a-f]+) \w __SC([TK])__(lsm_static_call_)?\S+$", re.MULTILINE)
"""Trampolines and keys of static calls."""
_KEY_FLAGS = 3


@dataclass(frozen=True, slots=True)
class Tables:
    """What the kernel patches while it runs, by the address of each instruction. Never changes."""

    jump_labels: Mapping[int, int] = field(default_factory=dict)
    """To where each jumps when it does."""
    static_calls: frozenset[int] = frozenset()
    """Instructions, and trampolines."""
    security: frozenset[int] = frozenset()
    """Those by which security modules are called: the kernel patches them while it boots, and never again
    (417c5643cd67, 6.12)."""


def read_tables(memory: KernelMemory, address: Callable[[str], int], kallsyms: bytes) -> Tables:
    """Raises `KernelError`. What this kernel does not tell is empty."""
    labels: dict[int, int] = {}
    begin, end = address("__start___jump_table"), address("__stop___jump_table")
    if begin and end > begin:
        for index, (code, to) in enumerate(struct.iter_unpack("<ii8x", memory.read(begin, end - begin))):
            labels[begin + 16 * index + code] = begin + 16 * index + 4 + to
    symbols = [(int(each[1], 16), each[2], bool(each[3])) for each in _OF_CALLS.finditer(kallsyms)]
    calls = {each for each, kind, _ in symbols if kind == b"T"}
    security = {each for each, kind, secures in symbols if kind == b"T" and secures}
    keys = {each for each, kind, secures in symbols if kind == b"K" and secures}
    begin, end = address("__start_static_call_sites"), address("__stop_static_call_sites")
    if begin and end > begin:
        for index, (code, key) in enumerate(struct.iter_unpack("<ii", memory.read(begin, end - begin))):
            site = begin + 8 * index
            calls.add(site + code)
            if (site + 4 + key) & ~_KEY_FLAGS & _MASK in keys:
                security.add(site + code)
    return Tables(labels, frozenset(calls), frozenset(security))
