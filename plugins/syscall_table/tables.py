"""What the kernel patches in its own code while it runs, and where: its tables of jump labels and static calls."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from krie import KernelMemory

_MASK = (1 << 64) - 1
_OF_CALLS = re.compile(rb"^([0-9a-f]+) \w __SC([TK])__(lsm_static_call_|tp_func_|__perf_guest_)?\S+$", re.MULTILINE)
"""Trampolines and keys of static calls."""
_SECURITY, _REGISTERED = b"lsm_static_call_", (b"tp_func_", b"__perf_guest_")
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
    registered: frozenset[int] = frozenset()
    """Those that call what a module may have registered: the one function at a tracepoint (d25e37d89dd2, 5.10), and
    what tells perf of guests (87b940a0675e, 5.17), which KVM does."""


def read_tables(memory: KernelMemory, address: Callable[[str], int], kallsyms: bytes) -> Tables:
    """Raises `KernelError`. What this kernel does not tell is empty."""
    labels: dict[int, int] = {}
    begin, end = address("__start___jump_table"), address("__stop___jump_table")
    if begin and end > begin:
        for index, (code, to) in enumerate(struct.iter_unpack("<ii8x", memory.read(begin, end - begin))):
            labels[begin + 16 * index + code] = begin + 16 * index + 4 + to
    symbols = [(int(each[1], 16), each[2], each[3] or b"") for each in _OF_CALLS.finditer(kallsyms)]
    keys = {each: use for each, kind, use in symbols if kind == b"K"}
    calls = {each: use for each, kind, use in symbols if kind == b"T"}
    begin, end = address("__start_static_call_sites"), address("__stop_static_call_sites")
    if begin and end > begin:
        for index, (code, key) in enumerate(struct.iter_unpack("<ii", memory.read(begin, end - begin))):
            site = begin + 8 * index
            calls[site + code] = keys.get((site + 4 + key) & ~_KEY_FLAGS & _MASK, b"")
    security = frozenset(each for each, use in calls.items() if use == _SECURITY)
    registered = frozenset(each for each, use in calls.items() if use in _REGISTERED)
    return Tables(labels, frozenset(calls), security, registered)
