"""Who stands behind a process, as the circuit breaker counts: an attacker counts once, however many processes, lineages
and copies of programs he makes.

An ordinary user is one principal: whatever his logins, cron jobs and services start, and what that becomes later (a
set-uid program, root by an exploit). So is a container, whose root may take any user. Of what root has run all the way
down from the first process, each program that was there before the agent counts by itself, unless somebody influenced
the process (by LD_PRELOAD, say); such processes and programs made since count by their lineage, which is what descends
from one child of tgid 1, also by double fork. All whose descent is not known are one: who forks fast enough has records
of it lost, and may have been anybody.

An attacker who is root still counts more than once: tgid 1 starts children for him (systemd-run), he runs programs of
before the agent, and he takes the ids of users.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from ..events.event import INFLUENCED, Event
from ..events.identity import Identity, Key
from .process import CONTAINED, UNKNOWN_LINEAGE, Process
from .table import ProcessTable


class Principal(NamedTuple):
    """One user, one container or lineage, or one program of root's."""

    kind: str
    """`user`, `lineage` or `program`."""
    which: int | Key | Identity

    def payer(self, event: Event) -> int:
        """Who pays for what is limited by user, as `krie_payer()` in the kernel has it.

        The user; else the container, by its outermost PID namespace: who is in one can make any number of others, each
        within the one before. Else root.
        """
        if isinstance(self.which, int):
            return self.which
        return event.container_ns


PrincipalOf = Callable[[Event], Principal]


class Principals:
    """Answers from the process table."""

    def __init__(self, table: ProcessTable, since_ns: int, stat: Callable[[str], os.stat_result] = os.stat) -> None:
        """`since_ns`: when the agent was started, ns since 1970; `stat` looks at a path."""
        self._table, self._since_ns, self._stat = table, since_ns, stat

    def __call__(self, event: Event) -> Principal:
        """The principal of the process that did the event."""
        process = self._table.actor(event)
        if process.user > 0:
            return Principal("user", process.user)
        known = process.lineage != UNKNOWN_LINEAGE
        influenced = (event.context | process.made) & INFLUENCED
        if known and not influenced and process.user != CONTAINED and self._is_older(process):
            return Principal("program", process.identity)
        return Principal("lineage", process.lineage)

    def _is_older(self, process: Process) -> bool:
        """Whether the executable is as it was before the agent: nobody but who sets the clock can forge a ctime."""
        if not process.exe_known:
            return False
        try:
            status = self._stat(process.exe)
        except (OSError, ValueError):
            return False
        return status.st_ino == process.identity.ino and status.st_ctime_ns < self._since_ns
