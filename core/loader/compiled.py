"""A compiled translation unit in this kernel: its maps exist, and its instructions hold their descriptors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..errors import KernelError
from ..events.agreed import FROZEN
from ..events.table_layout import SIZE as TABLE_BYTES
from ..kernel import bpf
from .object import Object, with_maps

_TABLES = "krie_tables"


@dataclass(frozen=True, slots=True)
class Compiled:
    """One translation unit, with maps that exist."""

    maps: Mapping[str, int]
    """Descriptors by name."""
    functions: Mapping[str, bytes]

    def instructions(self, function: str) -> bytes:
        """Those of one function. Raises `KernelError` where the C source has none of that name."""
        if (code := self.functions.get(function)) is None:
            raise KernelError(f"the C source has no function {function}", 0, "the probe names it; is it inside #ifdef?")
        return code

    def close(self) -> None:
        """Close the maps' descriptors."""
        for each in self.maps.values():
            os.close(each)


def instantiate(made: Object, entries: Mapping[str, int], kinds: int) -> Compiled:
    """Make the maps of an object in this kernel. Raises `KernelError`.

    `entries`: sizes of maps that the object leaves open, by name. `kinds`: how many kinds of events have a table in a
    generation of the policy.
    """
    maps: dict[str, int] = {}
    try:
        for name, shape in made.maps.items():
            sized = replace(shape, entries=entries.get(name, shape.entries))
            maps[name] = _map_of_tables(kinds) if name == _TABLES else _map(sized)
    except KernelError:
        for each in maps.values():
            os.close(each)
        raise
    numbers = dict(enumerate(maps.values()))
    return Compiled(maps, {name: with_maps(code, numbers) for name, code in made.functions.items()})


def _map(shape: bpf.MapShape) -> int:
    """Its descriptor. One that programs alone write is frozen, before anybody else can have written it."""
    made = bpf.map_of_shape(replace(shape, flags=shape.flags & ~FROZEN))
    if shape.flags & FROZEN:
        try:
            bpf.freeze(made)
        except KernelError:
            os.close(made)
            raise
    return made


def _map_of_tables(kinds: int) -> int:
    """The map of maps that is an ordinary one to BCC: see `bpf/table.bpf.c`."""
    alike = bpf.MapShape(bpf.MapType.ARRAY, 4, TABLE_BYTES, max(1, kinds), bpf.READ_ONLY, "krie_generation")
    shape = bpf.map_of_shape(alike)
    try:
        return bpf.map_create(bpf.MapType.ARRAY_OF_MAPS, 4, 4, 1, _TABLES, inner=shape)
    finally:
        os.close(shape)
