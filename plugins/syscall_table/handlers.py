"""Handlers whose callers are checked: which functions, and what proves that they are looked at."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from krie import numbers_of, system_call

from .events import IA32, X64

_SYS_GETDENTS = 78  # x86-64


@dataclass(frozen=True, slots=True)
class Handler:
    """A function that handles a system call, and may be probed at its entry."""

    index: int
    """In the map of handlers, from 1 on: 0 is not an argument of a program."""
    call: str
    function: str
    abi: int
    number: int


def handlers(calls: Iterable[str]) -> Iterator[Handler]:
    """Those of each system call, for 64-bit and 32-bit callers; a kernel has some of them."""
    index = 1
    for call in calls:
        numbers = numbers_of(call)
        for function, abi, known in (
            (f"__x64_sys_{call}", X64, numbers.native),
            (f"__ia32_sys_{call}", IA32, numbers.ia32),
            (f"__ia32_compat_sys_{call}", IA32, numbers.ia32),
        ):
            yield Handler(index, call, function, abi, known[0] if known else -1)
            index += 1


def _signal_nobody() -> None:
    os.kill(os.getpid(), 0)


def _list_a_folder() -> None:
    os.listdir("/proc/self/task")


def _list_a_folder_in_the_old_way() -> None:
    descriptor = os.open("/proc/self/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        buffer = ctypes.create_string_buffer(512)
        system_call(_SYS_GETDENTS, descriptor, buffer, len(buffer))
    finally:
        os.close(descriptor)


CANARIES: Mapping[str, Callable[[], None]] = {
    "kill": _signal_nobody,
    "getdents": _list_a_folder_in_the_old_way,
    "getdents64": _list_a_folder,
}
"""A harmless call of some of them."""
