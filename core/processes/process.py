"""What is known of one process."""

from __future__ import annotations

from dataclasses import dataclass

from ..events.identity import Identity, Key

UNKNOWN = "?"
"""Stands for a path that is not known. Rules also see `exe_known`."""
CONTAINED = -1
"""Of `Process.user`: it descends from root in a PID namespace of its own, who may take any user."""
COMM_BYTES = 15
"""Of a thread's name. /proc shows longer ones of some kernel threads, of which records have no more than that."""
NOTHING = Identity(0, 0, 0)
UNKNOWN_LINEAGE = Key(0, 0)


@dataclass(frozen=True, slots=True)
class Process:
    """One process as last seen."""

    key: Key
    parent: Key
    comm: str
    """At most `COMM_BYTES`."""
    exe: str
    """Path of the executable in the process's own mount namespace; empty for kernel threads, `?` when not known."""
    exe_known: bool
    identity: Identity
    """Of the executable; all zero for kernel threads."""
    uid: int
    euid: int
    gid: int
    lineage: Key = UNKNOWN_LINEAGE
    """The child of tgid 1 from which it descends by fork, whoever its parent is now.

    `UNKNOWN_LINEAGE` where the records of that were lost.
    """
    user: int = 0
    """The first user other than root among those from which it descends and itself, or `CONTAINED`; whatever it becomes
    later. 0: root all the way."""
    made: int = 0
    """Bits of `INFLUENCE`: what had influenced who forked it when that was, and itself whenever it executed something.

    Then it is not what its parent's executable makes of a child.
    """
