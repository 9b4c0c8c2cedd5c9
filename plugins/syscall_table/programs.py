"""Code that the kernel made of BPF programs: where it lies, as the kernel tells those who may know addresses."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from krie import KernelError, system_call

_SYS_BPF = 321  # x86-64
_NEXT_ID, _FD_BY_ID, _INFO_BY_FD = 11, 13, 15
_INFO_BYTES = 128
_COUNTS, _COUNTS_AT = struct.Struct("=IIQQ"), 104
"""nr_jited_ksyms, nr_jited_func_lens, jited_ksyms, jited_func_lens of struct bpf_prog_info (4.18, 815581c11cc2)."""
_NAME = slice(64, 80)
_ENOENT = 2


@dataclass(frozen=True, slots=True)
class Program:
    """One function of a program."""

    number: int
    """The kernel's, of the program; never used again."""
    name: str
    start: int
    size: int


def programs() -> Iterator[Program]:
    """All that are loaded. Raises `KernelError` where they may not be asked for."""
    number = 0
    while (following := _next(number)) is not None:
        number = following
        yield from _functions(number)


def _next(number: int) -> int | None:
    attributes = ctypes.create_string_buffer(struct.pack("=III", number, 0, 0), 12)
    result = _call(_NEXT_ID, attributes)
    if result == -_ENOENT:
        return None
    if result < 0:
        raise KernelError("asking for the next BPF program", -result)
    return int(struct.unpack_from("=I", attributes, 4)[0])


def _functions(number: int) -> Iterator[Program]:
    descriptor = _call(_FD_BY_ID, ctypes.create_string_buffer(struct.pack("=III", number, 0, 0), 12))
    if descriptor < 0:  # it has gone meanwhile
        return
    try:
        info = _info(descriptor, bytes(_COUNTS.size))
        count, lengths, *_ = _COUNTS.unpack_from(info, _COUNTS_AT)
        count = min(count, lengths)
        starts, sizes = (ctypes.c_uint64 * count)(), (ctypes.c_uint32 * count)()
        info = _info(
            descriptor, _COUNTS.pack(count, count, ctypes.addressof(starts), ctypes.addressof(sizes)) if count else b""
        )
        name = info[_NAME].partition(b"\0")[0].decode(errors="replace")
        for start, size in zip(starts, sizes, strict=True):
            if start and size:  # 0 where addresses are not told
                yield Program(number, name, start, size)
    finally:
        os.close(descriptor)


def _info(descriptor: int, counts: bytes) -> bytes:
    info = ctypes.create_string_buffer(bytes(_COUNTS_AT) + counts, _INFO_BYTES)
    attributes = struct.pack("=IIQ", descriptor, _INFO_BYTES, ctypes.addressof(info))
    if (result := _call(_INFO_BY_FD, ctypes.create_string_buffer(attributes, len(attributes)))) < 0:
        raise KernelError("asking about a BPF program", -result)
    return info.raw


def _call(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    return system_call(_SYS_BPF, command, attributes, len(attributes))
