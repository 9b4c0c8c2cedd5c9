"""Code that the kernel made of BPF programs: where it lies, as the kernel tells those who may know addresses."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass

from . import bpf
from .bpf_attributes import ProgInfo
from .bpf_listing import opened


@dataclass(frozen=True, slots=True)
class BpfFunction:
    """One function of a program, compiled (4.18, 815581c11cc2)."""

    number: int
    """The kernel's, of the program; never used again."""
    name: str
    """The program's."""
    start: int
    size: int
    """Bytes."""


def bpf_functions() -> Iterator[BpfFunction]:
    """Of all programs that are loaded. Raises `KernelError` where they may not be asked for."""
    for number, descriptor in opened(bpf.Command.PROG_GET_NEXT_ID, bpf.Command.PROG_GET_FD_BY_ID):
        counted = bpf.ask_about(descriptor, ProgInfo())
        count = min(counted.nr_jited_ksyms, counted.nr_jited_func_lens)
        if not count:
            continue
        starts, sizes = (ctypes.c_uint64 * count)(), (ctypes.c_uint32 * count)()
        asked = ProgInfo(
            nr_jited_ksyms=count,
            nr_jited_func_lens=count,
            jited_ksyms=ctypes.addressof(starts),
            jited_func_lens=ctypes.addressof(sizes),
        )
        name = bpf.ask_about(descriptor, asked).name.decode(errors="replace")
        for start, size in zip(starts, sizes, strict=True):
            if start and size:  # 0 where addresses are not told
                yield BpfFunction(number, name, start, size)
