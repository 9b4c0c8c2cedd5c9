"""Gaps in the watch: a note that the agent lives, by which the next one finds out that it died, and for how long nobody
watched; and a pulse, by which it finds out itself that it was held up."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import ConfigError, UntrustedFileError
from ..kernel_files import AnyFile, KernelFile, boot_id
from ..trust import read_trusted

_log = logging.getLogger("krie")
_MOST_BYTES = 4096
_LATEST_S = 1 << 40
"""No clock says more, s: some 35,000 years."""
OWN_WAITING_S = 10.0
"""More the agent never waits between two beats: probes that are detached take the kernel up to 6 s, elsewhere less."""
_BETWEEN_BEATS_S = 1.5
"""It waits so long in any case, for the next one."""
_SCHEDSTAT = KernelFile("/proc/thread-self/schedstat")
_TGIDS = 1 << 22  # PID_MAX_LIMIT


@dataclass(frozen=True, slots=True)
class Note:
    """What an agent leaves. `clean`: it ended by itself."""

    boot_id: str
    tgid: int
    last_seen_s: float
    """By the wall's clock, which may be set meanwhile."""
    uptime_s: float
    """The same by the clock that nobody sets, since that boot (CLOCK_BOOTTIME)."""
    clean: bool


class Presence:
    """The note of this agent, in a folder that only root can write to."""

    def __init__(self, folder: Path) -> None:
        """Make the folder. Raises `ConfigError`."""
        self._file = folder / "agent.json"
        self._boot_id = boot_id()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError("agent.state_dir", f"{folder} cannot be used: {error.strerror}") from error

    def before(self) -> Note | None:
        """What the agent before left, None where there was none or its note is unreadable, or not to be believed."""
        try:
            content = json.loads(read_trusted(self._file, _MOST_BYTES))
            note = Note(
                str(content["boot_id"]),
                int(content["tgid"]),
                float(content["last_seen_s"]),
                float(content["uptime_s"]),
                bool(content["clean"]),
            )
        except UntrustedFileError as error:
            _log.warning("agent.state_dir: ignoring the previous agent's note: %s", error)
            return None
        except (ConfigError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None
        possible = 0 < note.tgid <= _TGIDS and 0 <= note.last_seen_s < _LATEST_S and 0 <= note.uptime_s < _LATEST_S
        return note if possible else None

    def same_boot(self, note: Note) -> bool:
        """Whether the machine has not been started again since."""
        return note.boot_id == self._boot_id

    def gap_s(self, note: Note) -> int:
        """For how long nobody watched, s. Of an earlier boot only the wall's clock tells it, 0 if it was set back."""
        since = _uptime_s() - note.uptime_s if self.same_boot(note) else time.time() - note.last_seen_s
        return max(0, int(since))

    def note(self, *, clean: bool = False) -> None:
        """Say that this agent lives, or ends by itself. Raises `OSError`."""
        note = Note(self._boot_id, os.getpid(), time.time(), _uptime_s(), clean)
        new = self._file.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(note), file)
        new.rename(self._file)

    def keep(self, *, clean: bool = False) -> None:
        """The same, where a failure is logged and ends nothing."""
        try:
            self.note(clean=clean)
        except OSError as error:
            _log.error("agent.state_dir: the next agent will not know that this one lived: %s", error)


class Pulse:
    """Notices that this process was held up from outside: stopped by a signal or a tracer, or frozen with its cgroup.

    Such a thread neither runs nor waits for a processor.
    """

    def __init__(self, busy_s: Callable[[], float] | None = None, now_s: Callable[[], float] = time.monotonic) -> None:
        """`busy_s`: for how long this thread has run or waited for a processor. `now_s` stands still in a suspend."""
        self._busy_s, self._now_s = busy_s or _busy_s, now_s
        self._last = (self._now_s(), self._busy_s())

    def beat(self, *, continued: bool) -> float:
        """To be called about once a second. Returns for how long the process was held up since the last time, s; 0 for
        what may be its own waiting, for time or for the kernel.

        `continued`: it got SIGCONT since, so that it may have been stopped for a short time. Service managers send that
        to processes that run, too.
        """
        now = (self._now_s(), self._busy_s())
        idle_s = (now[0] - self._last[0]) - (now[1] - self._last[1])
        self._last = now
        return idle_s if idle_s > (_BETWEEN_BEATS_S if continued else OWN_WAITING_S) else 0.0


def _busy_s(file: AnyFile = _SCHEDSTAT) -> float:
    """Falls back to the time that the thread ran where the kernel keeps no account of waiting."""
    try:
        ran, waited = file.read_text().split()[:2]
    except (OSError, ValueError):
        return time.thread_time()
    return (int(ran) + int(waited)) / 1e9


def _uptime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
