"""Brings tables into force: one generation is a fresh map, and takes over by one write.

Texts and executables have numbers of their own, written before the generation that uses them and taken back after it:
to a table that does not know a number it is any other, as it was before. The write waits for all programs that still
read the generation before (`maybe_wait_bpf_programs`), so that numbers can be given again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import KernelError
from ..events.core_maps import File
from ..events.numbers import ONLY, WORD
from ..events.table_layout import EMPTY, SIZE
from ..events.wire import NAME_BYTES
from ..kernel import bpf
from ..kernel.maps import Map
from .domain import Numbers

_log = logging.getLogger("krie")


def _new_map(tables: Sequence[bytes]) -> int:
    """A map with a table in each slot, which stay as they are; returns its descriptor.

    Until the guard knows it, others may open it by its number: so it is frozen first, and then looked at.
    """
    bpf.allow_locked_memory()
    entries = max(1, len(tables))
    shape = bpf.MapShape(bpf.MapType.ARRAY, WORD.size, SIZE, entries, bpf.READ_ONLY, "krie_generation")
    made = bpf.map_of_shape(shape)
    try:
        for slot, table in enumerate(tables):
            bpf.update(made, WORD.encode(slot), table)
        bpf.freeze(made)
        for slot, table in enumerate(tables):
            if bpf.lookup(made, WORD.encode(slot), SIZE) != table.ljust(SIZE, b"\0"):
                raise KernelError("filling map krie_generation: somebody wrote there, too")
    except KernelError:
        os.close(made)
        raise
    return made


@dataclass(frozen=True, slots=True)
class Generation:
    """Tables that wait in the kernel to take over, or that have."""

    number: int
    """What their records name."""
    numbers: Numbers
    inner: int = 0
    """The kernel's id of their map; 0: no table was ever in force."""
    descriptor: int = -1
    """Of their map, until they took over."""
    added: tuple[tuple[Map, bytes], ...] = ()
    """Keys that were written for them and were not there before."""


class KernelTables:
    """The maps of `bpf/table.bpf.c`. Errors are `KernelError`; what was in force then stays so."""

    def __init__(
        self,
        maps: Mapping[str, Map],
        kinds: Sequence[int],
        new_map: Callable[[Sequence[bytes]], int] = _new_map,
        number_of: Callable[[int], int] = bpf.map_id,
    ) -> None:
        """`kinds`: in order of their slots; `new_map` makes a generation's map, and `number_of` tells its number."""
        self._new_map, self._number_of = new_map, number_of
        self._current, self._names, self._programs = maps["krie_tables"], maps["krie_names"], maps["krie_programs"]
        self._kinds = kinds
        self._own = maps.get("containment_own_maps")  # see krie.enforce.self_defence; None where nothing enforces
        self._given = 0
        self.in_force = Generation(0, Numbers())

    @property
    def numbers(self) -> Numbers:
        """Numbers of names and executables in the generation in force."""
        return self.in_force.numbers

    @property
    def generation(self) -> int:
        """Number of the generation in force."""
        return self.in_force.number

    def next_generation(self) -> int:
        """A number for tables that are about to be made; one that was not used is not given again."""
        self._given = self._given % 0xFFFFFFFF + 1
        return self._given

    def install(self, tables: Mapping[int, bytes], numbers: Numbers) -> None:
        """Bring the tables of some kinds, made with the number given last, into force, and none for other kinds."""
        self.take_over(self.prepare(self._given, tables, numbers))

    def prepare(self, number: int, tables: Mapping[int, bytes], numbers: Numbers) -> Generation:
        """Make everything that the tables need, next to those in force.

        Either `take_over` or `drop` must follow. Raises `KernelError`; then everything is as it was.
        """
        added: list[tuple[Map, bytes]] = []
        inner = -1
        try:
            for text, value in numbers.names.items():
                self._add(self._names, text.ljust(NAME_BYTES, b"\0"), value, text in self.numbers.names, added)
            for file, value in numbers.files.items():
                key = File.key(file)
                self._add(self._programs, key, value, file in self.numbers.files, added)
            inner = self._new_map([tables.get(kind, EMPTY) for kind in self._kinds])
            map_id = self._number_of(inner)
            if self._own is not None:
                self._add(self._own, WORD.encode(map_id), 1, False, added)
        except BaseException:
            self.drop(Generation(number, numbers, 0, inner, tuple(added)))
            raise
        return Generation(number, numbers, map_id, inner, tuple(added))

    def drop(self, prepared: Generation) -> None:
        """Take back what `prepare` made."""
        for table, key in reversed(prepared.added):
            _remove(table, key)
        if prepared.descriptor >= 0:
            os.close(prepared.descriptor)

    def take_over(self, prepared: Generation) -> None:
        """Let what was prepared decide, by one write. Raises `KernelError` where that fails: then it was dropped."""
        try:
            self._current.set(ONLY, WORD.encode(prepared.descriptor))
        except KernelError:
            self.drop(prepared)
            raise
        os.close(prepared.descriptor)  # the map of maps holds it
        before, self.in_force = self.in_force, replace(prepared, descriptor=-1, added=())
        if self._own is not None and before.inner:
            _remove(self._own, WORD.encode(before.inner))
        for text in before.numbers.names.keys() - prepared.numbers.names.keys():
            _remove(self._names, text.ljust(NAME_BYTES, b"\0"))
        for file in before.numbers.files.keys() - prepared.numbers.files.keys():
            _remove(self._programs, File.key(file))

    @staticmethod
    def _add(table: Map, key: bytes, value: int, known: bool, added: list[tuple[Map, bytes]]) -> None:
        table.set(key, WORD.encode(value))
        if not known:
            added.append((table, key))


def _remove(table: Map, key: bytes) -> None:
    """What stays in there is a number that no table asks for: nothing that the agent should end for."""
    try:
        table.remove(key)
    except KernelError as error:
        _log.error("map %s keeps an entry that nothing needs: %s", table.name, error)
