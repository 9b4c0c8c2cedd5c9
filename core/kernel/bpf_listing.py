"""The machine's BPF objects: all of a kind, which maps its programs use, which maps and programs its maps hold."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ..errors import KernelError
from . import bpf
from .bpf_attributes import ById, ProgInfo

_PROG_ARRAY, _ARRAY_OF_MAPS, _HASH_OF_MAPS = 3, 12, 13
_HOLDS = {_PROG_ARRAY: "prog", _ARRAY_OF_MAPS: "map", _HASH_OF_MAPS: "map"}
_USED_MAPS = 64  # MAX_USED_MAPS
_MOST = 1 << 13
"""Elements of one map that are looked at."""


@dataclass(frozen=True, slots=True)
class UsedObjects:
    """What a program or a map uses."""

    kind: str
    """`prog` or `map`."""
    number: int
    used: frozenset[tuple[str, int]]
    """Kinds and numbers."""


def uses(leave_out: Collection[tuple[str, int]] = ()) -> Iterator[UsedObjects]:
    """Of everybody's programs, and maps that hold others, but these. Raises `KernelError`."""
    for number, descriptor in opened(bpf.Command.PROG_GET_NEXT_ID, bpf.Command.PROG_GET_FD_BY_ID):
        if ("prog", number) in leave_out:
            continue
        yield UsedObjects("prog", number, frozenset(("map", each) for each in _maps_of(descriptor)))
    for number, descriptor in opened(bpf.Command.MAP_GET_NEXT_ID, bpf.Command.MAP_GET_FD_BY_ID):
        if ("map", number) in leave_out:
            continue
        shape = bpf.map_shape(descriptor)
        if kind := _HOLDS.get(shape.type):
            yield UsedObjects("map", number, frozenset((kind, each) for each in _values(descriptor, shape.key_size)))


def opened(following: bpf.Command, by_number: bpf.Command) -> Iterator[tuple[int, int]]:
    """Numbers and descriptors of all there are, each closed behind its use. Raises `KernelError`."""
    number = 0
    while True:
        asked = ById(number)
        if (result := bpf.call(following, asked)) < 0:
            if result == -errno.ENOENT:
                return
            raise KernelError("listing BPF objects", -result)
        number = asked.next_id
        descriptor = bpf.call(by_number, ById(number))
        if descriptor < 0:
            continue  # it has gone
        try:
            yield number, descriptor
        finally:
            os.close(descriptor)


def _maps_of(program: int) -> tuple[int, ...]:
    numbers = (ctypes.c_uint32 * _USED_MAPS)()
    info = bpf.ask_about(program, ProgInfo(nr_map_ids=_USED_MAPS, map_ids=ctypes.addressof(numbers)))
    return tuple(numbers[: min(_USED_MAPS, info.nr_map_ids)])


def _values(descriptor: int, key_bytes: int) -> Iterator[int]:
    key = bpf.next_key(descriptor, None, key_bytes)
    for _ in range(_MOST):
        if key is None:
            return
        if (value := bpf.lookup(descriptor, key, 4)) is not None:
            yield int.from_bytes(value, "little")
        key = bpf.next_key(descriptor, key, key_bytes)
