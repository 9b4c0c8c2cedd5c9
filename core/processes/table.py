"""The process table: what is known of each process by (tgid, start time), also when it is gone.

Fed by the records of `krie.processes.sensor` in the order in which the kernel wrote them, and seeded from /proc.
Nothing here reads /proc for a live event, but where a record contradicts the table (an exec record was lost), or holds
only the end of a path (24 folders), and where the table is full of processes of which no end was told.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from ..events.event import CONTAINER, INFLUENCED, UNBOUND, Event
from ..events.identity import Identity, Key
from ..events.path import path_text
from ..events.wire import text_of
from ..procfs import Procfs, procfs
from .proc import TICK_NS, executable, is_there, processes_in
from .process import CONTAINED, NOTHING, UNKNOWN, UNKNOWN_LINEAGE, Process
from .sensor import ProcessExec, ProcessExit, ProcessFork

_INIT_TGID = 1
MOST_ANCESTORS = 16
"""That rules see."""
_LOOKED_AT = 2
"""At each process that is one too many: a look takes some 20 us."""
_BEYOND = 1.125
"""Part of its limit up to which the table grows while it finds only processes that live."""


def path_of(record: ProcessExec) -> tuple[str, bool]:
    """The path in an exec record, and whether it is whole."""
    return path_text(record.components, record.length, truncated=record.truncated, deleted=record.deleted)


class ProcessTable:
    """All processes that live, and those that ended recently; at most `limit` of them."""

    def __init__(
        self, limit: int, identify: Callable[[int], Identity], lives: Callable[[Key], bool] = is_there
    ) -> None:
        """`identify` tells which file a process executed, by its tgid, as the kernel's records name it; `lives`:
        whether a process is still there."""
        self._limit = limit
        self._identify, self._lives = identify, lives
        # Ordered ones: the first of a plain dict is searched for behind all places that those before it have left.
        self._processes: OrderedDict[Key, Process] = OrderedDict()
        self._seeded: dict[int, Key] = {}
        """Processes found in /proc, by tgid: their keys are exact only once a record named them."""
        self._ended: OrderedDict[Key, None] = OrderedDict()
        self.evicted = 0
        """Live processes that had to be forgotten."""
        self.contradicted = 0
        """Records whose executable was not the one in the table."""
        self._handlers: Mapping[type[Event], Callable[..., None]] = {
            ProcessFork: self._fork,
            ProcessExec: self._exec,
            ProcessExit: self._exit,
        }

    def __len__(self) -> int:
        """How many processes the table knows."""
        return len(self._processes)

    @property
    def kinds(self) -> frozenset[int]:
        """Kinds of the records that belong here."""
        return frozenset(each.KIND for each in self._handlers)

    def feed(self, record: Event) -> None:
        """Take in a fork, exec or exit record."""
        self._handlers[type(record)](record)

    def actor(self, event: Event) -> Process:
        """The process that an event's header names, brought up to date with that header."""
        key = Key(event.tgid, event.start_time)
        known = self.find(key)
        identity = Identity(event.exe_dev, event.exe_ino, event.exe_generation)
        if known is None:
            known = self._from_proc(event, identity)
        elif identity not in (known.identity, NOTHING):
            missed = known.identity != NOTHING
            self.contradicted += missed
            known = self._from_proc(event, identity, UNBOUND if missed else 0)
        elif (known.uid, known.euid, known.gid) != (event.uid, event.euid, event.gid) or known.key != key:
            user = known.user or _user_of(event)
            known = replace(known, key=key, uid=event.uid, euid=event.euid, gid=event.gid, user=user)
        else:
            return known
        self._put(known)
        return known

    def find(self, key: Key) -> Process | None:
        """A process by its key; exact, but for processes from /proc, whose start is compared by clock ticks."""
        if (found := self._processes.get(key)) is not None:
            return found
        seeded = self._seeded.get(key.tgid)
        if seeded is None or seeded.start_time // TICK_NS != key.start_time // TICK_NS:
            return None
        return self._processes.get(seeded)

    def ancestors(self, process: Process) -> Iterator[Process]:
        """Parent, grandparent and so on, as far as they are known, at most 16."""
        for _ in range(MOST_ANCESTORS):
            parent = self.find(process.parent)
            if parent is None or parent.key == process.key:
                return
            yield parent
            process = parent

    def seed(self, proc: Procfs | None = None) -> None:
        """Read all processes of /proc that no record has told of already."""
        keys: dict[int, Key] = {}
        found = list(processes_in(proc or procfs(), self._identify))
        for process, _ in found:
            keys[process.key.tgid] = process.key
        for process, parent_tgid in found:
            self._seeded.setdefault(process.key.tgid, process.key)
            if self.find(process.key) is None:
                self._put(replace(process, parent=keys.get(parent_tgid, Key(parent_tgid, 0))))
        for process, _ in found:
            self._descend(process.key)

    def _descend(self, key: Key) -> None:
        """Give a process from /proc, and those above it, what they have from their ancestors."""
        line: list[Process] = []
        process = self.find(key)
        while process is not None and process.lineage == UNKNOWN_LINEAGE and process not in line:
            line.append(process)
            process = self.find(process.parent)
        while line:
            self._put(self._child(line.pop()))

    def _child(self, process: Process) -> Process:
        """The same with what it has from its parent."""
        parent = self.find(process.parent)
        if parent is None or parent.key.tgid == _INIT_TGID or parent.key == process.key:
            return replace(process, lineage=process.key)
        return replace(process, lineage=parent.lineage, user=parent.user or process.user)

    def _stranger(self, process: Process) -> Process:
        """The same of one whose fork nobody told: whoever is its parent now may have adopted it."""
        parent = self.find(process.parent)
        if process.parent.tgid == _INIT_TGID or (parent is None and process.parent.tgid):
            return process
        return self._child(process)

    def _fork(self, record: ProcessFork) -> None:
        maker = self.actor(record)
        child = Key(record.child_tgid, record.child_start_time)
        parent = Key(record.child_parent_tgid, record.child_parent_start_time)
        lineage = child if maker.key.tgid == _INIT_TGID else maker.lineage
        made = record.context & INFLUENCED
        if parent != maker.key:  # a brother's: CLONE_PARENT
            made |= maker.made
        self._put(replace(maker, key=child, parent=parent, comm=record.comm, lineage=lineage, made=made))

    def _exec(self, record: ProcessExec) -> None:
        path, known = path_of(record)
        if (
            not known
        ):  # the kernel's side goes up so many folders and no more; while the process lives, /proc has it all
            path, known = self._path_in_proc(record) or (path, known)
        key = Key(record.tgid, record.start_time)
        self._put(
            self._continued(
                key,
                record,
                record.influence & INFLUENCED,
                Process(
                    key,
                    Key(record.parent_tgid, record.parent_start_time),
                    record.comm,
                    path,
                    known,
                    Identity(record.exe_dev, record.exe_ino, record.exe_generation),
                    record.uid,
                    record.euid,
                    record.gid,
                ),
            )
        )

    def _continued(self, key: Key, event: Event, made: int, process: Process) -> Process:
        """A process as it is now, with the ancestry that is known of it. `made`: what is added to `Process.made`."""
        before = self.find(key)
        if before is None:
            return self._stranger(replace(process, user=_user_of(event), made=UNBOUND))
        made |= before.made
        return replace(process, lineage=before.lineage, user=before.user or _user_of(event), made=made)

    def _exit(self, record: ProcessExit) -> None:
        process = self.find(Key(record.tgid, record.start_time))
        if process is not None:
            self._ended[process.key] = None

    def _put(self, process: Process) -> None:
        seeded = self._seeded.get(process.key.tgid)
        ticks = process.key.start_time // TICK_NS
        if seeded is not None and seeded != process.key and seeded.start_time // TICK_NS == ticks:
            self._processes.pop(seeded, None)
            self._seeded[process.key.tgid] = process.key
        self._processes[process.key] = process
        for _ in range(2):  # so that it gets smaller again where it had to grow
            if len(self._processes) > self._limit:
                self._forget_one()

    def _forget_one(self) -> None:
        if self._ended:
            key, _ = self._ended.popitem(last=False)
        elif (gone := self._one_that_is_gone()) is not None:
            key = gone
        elif len(self._processes) > self._limit * _BEYOND:
            key = next(iter(self._processes))
            self.evicted += 1
        else:
            return
        self._processes.pop(key, None)
        if self._seeded.get(key.tgid) == key:
            del self._seeded[key.tgid]

    def _one_that_is_gone(self) -> Key | None:
        """Who forks fast has records of ends lost: what stays of his processes may not push out those that live."""
        for _ in range(_LOOKED_AT):
            key = next(iter(self._processes))
            if not self._lives(key):
                return key
            self._processes.move_to_end(key)  # all others are looked at before it
        return None

    def _path_in_proc(self, event: Event) -> tuple[str, bool] | None:
        """The path of what a process runs; None where it is gone, or runs something else by now."""
        try:
            path, found = executable(procfs(), event.tgid, self._identify)
        except OSError:  # it is gone, or cannot be read
            return None
        if path == UNKNOWN or found != Identity(event.exe_dev, event.exe_ino, event.exe_generation):
            return None
        return text_of(os.fsencode(path)), True

    def _from_proc(self, event: Event, identity: Identity, made: int = 0) -> Process:
        """A process that the table does not know, or not as it is now: /proc may still tell the path. `made`: see
        `_continued`."""
        path, known = self._path_in_proc(event) or (UNKNOWN, False)
        key = Key(event.tgid, event.start_time)
        return self._continued(
            key,
            event,
            made,
            Process(
                key,
                Key(event.parent_tgid, event.parent_start_time),
                event.comm,
                path,
                known,
                identity,
                event.uid,
                event.euid,
                event.gid,
            ),
        )


def _user_of(event: Event) -> int:
    """See `Process.user`."""
    return CONTAINED if event.context & CONTAINER else event.uid
