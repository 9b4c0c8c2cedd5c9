"""BPF programs, maps and links of the machine: which there are, and which somebody left behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ..kernel.bpf import Command, call
from ..kernel.bpf_attributes import ById
from .needs import RESULTS_VARIABLE
from .patience import PATIENCE_S

Objects = frozenset[tuple[str, int]]
"""By kind and id."""
_NEXT_ID = {"prog": Command.PROG_GET_NEXT_ID, "map": Command.MAP_GET_NEXT_ID, "link": Command.LINK_GET_NEXT_ID}


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


def _ids(command: Command) -> list[int]:
    found = [0]
    while call(command, asked := ById(found[-1])) == 0:
        found.append(asked.next_id)
    return found[1:]


def _held(tgid: int) -> Objects:
    words = {f"{kind}_id": kind for kind in _NEXT_ID}
    lines = [
        line.split(":") for each in Path(f"/proc/{tgid}/fdinfo").iterdir() for line in each.read_text().splitlines()
    ]
    return frozenset((words[line[0]], int(line[1])) for line in lines if line[0] in words)
