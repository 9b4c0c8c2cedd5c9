"""Who else holds the agent's BPF objects: what somebody took before the guard was on stays a descriptor, and is told.

The kernel counts who holds a map by an open file, a pin or an iterator, also where the descriptor is on its way over a
socket, which no /proc shows. Programs that are loaded, and maps, name what they use in turn.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from ..kernel import bpf_listing
from ..procfs import Procfs, procfs
from .self_defence import Held, held_files

_RUN_ALONE = {"krie_change": 1, "krie_inspect": 2, "process_running": 1, "guard_beat": 1}
"""Programs that are attached nowhere, with how many hold them while the agent counts: `krie_inspect` is what counts."""
_WORDS = {"map": "map", "prog": "program"}
_TRIES = 5
"""Whoever uses a descriptor at the moment holds it, too."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody has an object of the agent's."""

    kind: str
    """`map` or `prog`."""
    id: int
    name: str
    by: str
    """`descriptor`, or `program 12`, or `map 13`."""
    tgid: int = 0
    """0: no process shows it."""


class Holders:
    """Looks for them. Errors are `KernelError` and `OSError`."""

    def __init__(
        self,
        count: Callable[[int], int],
        files: Callable[[], Iterable[tuple[int, Held]]] = held_files,
        uses: Callable[[Collection[tuple[str, int]]], Iterable[bpf_listing.UsedObjects]] = bpf_listing.uses,
        proc: Procfs | None = None,
    ) -> None:
        """`count`: of those who hold the object behind a descriptor; `files`: the agent's; `uses`: of all but these."""
        self._count, self._files, self._uses, self._proc = count, files, uses, proc or procfs()
        self._told: set[Holder] = set()

    def look(self, own: Iterable[Held]) -> list[Holder]:
        """Those that were not there at the last look. `own`: all objects of the agent's."""
        found = {*self._by_descriptor(), *self._by_objects(own)}
        new, self._told = found - self._told, found
        return sorted(new, key=lambda each: (each.kind, each.id, each.by, each.tgid))

    def _by_descriptor(self) -> Iterator[Holder]:
        for descriptor, each in list(self._files()):
            usual = 1 if each.kind == "map" else _RUN_ALONE.get(each.name, 0)
            if usual and min(self._count(descriptor) for _ in range(_TRIES)) > usual:
                tgids = list(self._shown(each)) or [0]
                yield from (Holder(each.kind, each.id, each.name, "descriptor", tgid) for tgid in tgids)

    def _by_objects(self, own: Iterable[Held]) -> Iterator[Holder]:
        objects = {(each.kind, each.id): each.name for each in own}
        for use in self._uses(objects):
            for used in objects.keys() & use.used:
                yield Holder(*used, objects[used], f"{_WORDS[use.kind]} {use.number}")

    def _shown(self, held: Held) -> Iterator[int]:
        """Processes that have it open, but the agent and its children."""
        line = f"{held.kind}_id:\t{held.id}\n".encode()
        agent = os.getpid()
        for tgid in self._proc.tgids():
            with suppress(OSError, ValueError, IndexError):
                parent = int(self._proc.read(f"{tgid}/stat").rpartition(b")")[2].split()[1])
                if agent in (tgid, parent):
                    continue
                if any(line in self._proc.read(f"{tgid}/fdinfo/{each}") for each in self._proc.names(f"{tgid}/fdinfo")):
                    yield tgid


def words(holder: Holder) -> str:
    """The holder as a sentence for the log."""
    by = f"process {holder.tgid}" if holder.tgid else "somebody" if holder.by == "descriptor" else holder.by
    return f"{by} holds {_WORDS[holder.kind]} {holder.name} of the agent's"
