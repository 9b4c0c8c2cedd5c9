"""Processes as /proc shows them: those that are older than the agent, and what a record could not hold."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator

from ..events.identity import Identity, Key
from ..events.wire import text_of
from ..procfs import Procfs, procfs
from .process import COMM_BYTES, CONTAINED, NOTHING, UNKNOWN, UNKNOWN_LINEAGE, Process

_log = logging.getLogger("krie")
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
"""The unit of start times in /proc."""


class Unreadable(OSError):
    """What /proc shows of a process is not what the kernel writes there."""


def processes_in(proc: Procfs, identify: Callable[[int], Identity]) -> Iterator[tuple[Process, int]]:
    """Each process in /proc with its parent's tgid; left out: those that end while we look, or cannot be read."""
    for tgid in proc.tgids():
        try:
            yield _process_in(proc, tgid, identify)
        except (FileNotFoundError, ProcessLookupError):
            continue
        except (OSError, ValueError, LookupError) as error:
            _log.warning("what /proc shows of process %d cannot be read: %s", tgid, error)


def started(tgid: int, proc: Procfs | None = None) -> int:
    """When a process started, in clock ticks. Raises `ProcessLookupError` where it is gone, and other `OSError`s."""
    try:
        return int((proc or procfs()).read(f"{tgid}/stat").rpartition(b")")[2].split()[19])
    except FileNotFoundError:
        raise ProcessLookupError from None
    except (ValueError, IndexError):
        raise Unreadable(f"/proc/{tgid}/stat holds no start time") from None


def is_there(process: Key, proc: Procfs | None = None) -> bool:
    """Whether a process is still there, as exactly as /proc tells its start. One that cannot be read is."""
    try:
        return started(process.tgid, proc) == process.start_time // TICK_NS
    except ProcessLookupError:
        return False
    except OSError:
        return True


def _process_in(proc: Procfs, tgid: int, identify: Callable[[int], Identity]) -> tuple[Process, int]:
    stat = proc.read(f"{tgid}/stat")
    comm, _, rest = stat.partition(b"(")[2].rpartition(b")")
    fields = rest.split()
    ids = {
        line.partition(b":")[0]: [int(number) for number in line.split()[1:]]
        for line in proc.read(f"{tgid}/status").splitlines()
        if line.startswith((b"Uid:", b"Gid:", b"NSpid:"))
    }
    path, identity = executable(proc, tgid, identify)
    uid, euid = ids[b"Uid"][:2]
    key = Key(tgid, int(fields[19]) * TICK_NS)
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


def executable(proc: Procfs, tgid: int, identify: Callable[[int], Identity]) -> tuple[str, Identity]:
    """Path and identity of what a process runs: `UNKNOWN` and `NOTHING` where we may not see it. Raises `OSError`."""
    try:
        path = proc.link(f"{tgid}/exe")
    except FileNotFoundError:
        return "", NOTHING  # a kernel thread
    except PermissionError:
        return UNKNOWN, NOTHING  # it has capabilities that we lack
    identity = identify(tgid)
    return path if identity != NOTHING else UNKNOWN, identity
