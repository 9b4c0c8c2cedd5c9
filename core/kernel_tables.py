"""Brings tables into force: one generation is a fresh map, and takes over by one write.

Texts and executables have numbers of their own, written before the generation that uses them and taken back after it:
to a table that does not know a number it is any other, as it was before. The write waits for all programs that still
read the generation before (`maybe_wait_bpf_programs`), so that numbers can be given anew.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence

from .errors import KernelError
from .kernel import bpf
from .kernel.maps import Map
from .policy.domain import Numbers
from .table_layout import EMPTY, SIZE
from .wire import NAME_BYTES

_FILE = struct.Struct("=QII")
_NUMBER = struct.Struct("=I")
_FIRST = bytes(4)


def _new_map(tables: Sequence[bytes]) -> int:
    """A map with a table in each slot; returns its descriptor."""
    bpf.allow_locked_memory()
    made = bpf.map_create(bpf.MapType.ARRAY, _NUMBER.size, SIZE, max(1, len(tables)), "krie_generation")
    try:
        for slot, table in enumerate(tables):
            bpf.update(made, _NUMBER.pack(slot), table)
    except KernelError:
        os.close(made)
        raise
    return made


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
        self._own = maps.get("containment_own_maps")  # see krie.guard; None where nothing enforces
        self._inner = 0
        self.numbers = Numbers()
        """Those in force."""
        self.generation = 0
        """The last one that was given."""

    def next_generation(self) -> int:
        """A number for tables that are about to be made."""
        self.generation = self.generation % 0xFFFFFFFF + 1
        return self.generation

    def install(self, tables: Mapping[int, bytes], numbers: Numbers) -> None:
        """Bring the tables of some kinds into force, and none for the others."""
        for text, number in numbers.names.items():
            self._names.set(text.ljust(NAME_BYTES, b"\0"), _NUMBER.pack(number))
        for file, number in numbers.files.items():
            self._programs.set(_FILE.pack(file.ino, file.dev, file.generation), _NUMBER.pack(number))
        inner = self._new_map([tables.get(kind, EMPTY) for kind in self._kinds])
        try:
            number = self._number_of(inner)
            if self._own is not None:
                self._own.set(_NUMBER.pack(number), _NUMBER.pack(1))
            self._current.set(_FIRST, _NUMBER.pack(inner))
        finally:
            os.close(inner)  # the map of maps holds it
        if self._own is not None and self._inner:
            self._own.remove(_NUMBER.pack(self._inner))
        self._inner = number
        before, self.numbers = self.numbers, numbers
        for text in before.names.keys() - numbers.names.keys():
            self._names.remove(text.ljust(NAME_BYTES, b"\0"))
        for file in before.files.keys() - numbers.files.keys():
            self._programs.remove(_FILE.pack(file.ino, file.dev, file.generation))
