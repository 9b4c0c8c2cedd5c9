"""Processes as /proc shows them: those that are older than the agent, and what a record could not hold."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ..events.identity import Identity, Key
from ..events.wire import text_of
from .process import COMM_BYTES, CONTAINED, NOTHING, UNKNOWN, UNKNOWN_LINEAGE, Process

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
"""The unit of start times in /proc."""


def processes_in(proc: Path, identify: Callable[[int], Identity]) -> Iterator[tuple[Process, int]]:
    """Each process in /proc with its parent's tgid; those that end while we look are left out."""
    for name in os.listdir(proc):
        if not name.isdecimal():
            continue
        try:
            yield _process_in(proc / name, identify)
        except (FileNotFoundError, ProcessLookupError):
            continue


def is_there(process: Key, proc: Path = Path("/proc")) -> bool:
    """Whether a process is still there, as exactly as /proc tells its start."""
    try:
        stat = (proc / str(process.tgid) / "stat").read_bytes()
    except OSError:
        return False
    return int(stat.rpartition(b")")[2].split()[19]) == process.start_time // TICK_NS


def _process_in(folder: Path, identify: Callable[[int], Identity]) -> tuple[Process, int]:
    stat = (folder / "stat").read_bytes()
    comm, _, rest = stat.partition(b"(")[2].rpartition(b")")
    fields = rest.split()
    ids = {
        line.partition(b":")[0]: [int(number) for number in line.split()[1:]]
        for line in (folder / "status").read_bytes().splitlines()
        if line.startswith((b"Uid:", b"Gid:", b"NSpid:"))
    }
    path, identity = executable(folder, identify)
    uid, euid = ids[b"Uid"][:2]
    key = Key(int(folder.name), int(fields[19]) * TICK_NS)
    text = text_of(os.fsencode(path))
    known = path != UNKNOWN
    user = CONTAINED if len(ids.get(b"NSpid", ())) > 1 else uid
    process = Process(
        key,
        Key(0, 0),
        text_of(comm[:COMM_BYTES]),
        text,
        known,
        identity,
        uid,
        euid,
        ids[b"Gid"][0],
        UNKNOWN_LINEAGE,
        user,
    )
    return process, int(fields[1])


def executable(folder: Path, identify: Callable[[int], Identity]) -> tuple[str, Identity]:
    """Path and identity of what a process runs: `UNKNOWN` and `NOTHING` where we may not see it. Raises `OSError`."""
    try:
        path = os.readlink(folder / "exe")
    except FileNotFoundError:
        return "", NOTHING  # a kernel thread
    except PermissionError:
        return UNKNOWN, NOTHING  # it has capabilities that we lack
    identity = identify(int(folder.name))
    return path if identity != NOTHING else UNKNOWN, identity
