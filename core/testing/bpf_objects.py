"""BPF programs, maps and links of the machine: which there are, and which somebody left behind."""

from __future__ import annotations

import ctypes
import os
import struct
import time
from pathlib import Path

from ..libc import libc
from .needs import RESULTS_VARIABLE
from .patience import PATIENCE_S

Objects = frozenset[tuple[str, int]]
"""By kind and id."""
_NEXT_ID = {"prog": 11, "map": 12, "link": 31}
"""Commands of bpf(2): BPF_PROG_GET_NEXT_ID and so on."""
_SYS_BPF = 321  # x86-64


def bpf_objects() -> Objects:
    """All that this machine has."""
    return frozenset((kind, each) for kind, command in _NEXT_ID.items() for each in _ids(command))


def objects_of(tgid: int, before: Objects) -> Objects:
    """What a process has: in a guest, where nobody else loads BPF, all that was not there before.

    On a machine that others use, what the process holds a descriptor of: what these hold in turn, such as a map of
    maps, goes with them.
    """
    return bpf_objects() - before if RESULTS_VARIABLE in os.environ else _held(tgid) - before


def leftovers(objects: Objects, timeout_s: float = PATIENCE_S) -> Objects:
    """Which of these are still there; the kernel frees those without a holder a moment later."""
    deadline = time.monotonic() + timeout_s
    while (left := bpf_objects() & objects) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _ids(command: int) -> list[int]:
    found = [0]
    while True:
        attributes = ctypes.create_string_buffer(struct.pack("=III", found[-1], 0, 0), 12)
        if libc.syscall(_SYS_BPF, command, attributes, 12) < 0:
            return found[1:]
        found.append(struct.unpack_from("=I", attributes, 4)[0])


def _held(tgid: int) -> Objects:
    words = {f"{kind}_id": kind for kind in _NEXT_ID}
    lines = [
        line.split(":") for each in Path(f"/proc/{tgid}/fdinfo").iterdir() for line in each.read_text().splitlines()
    ]
    return frozenset((words[line[0]], int(line[1])) for line in lines if line[0] in words)
