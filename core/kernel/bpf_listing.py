"""Which maps the machine's BPF programs use, and which maps and programs its maps hold."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ..errors import KernelError
from . import bpf

_PROG_ARRAY, _ARRAY_OF_MAPS, _HASH_OF_MAPS = 3, 12, 13
_HOLDS = {_PROG_ARRAY: "prog", _ARRAY_OF_MAPS: "map", _HASH_OF_MAPS: "map"}
_USED_MAPS = 64  # MAX_USED_MAPS
_INFO = 80
_MOST = 1 << 13
"""Elements of one map that are looked at."""


@dataclass(frozen=True, slots=True)
class Use:
    """What a program or a map uses."""

    kind: str
    """`prog` or `map`."""
    number: int
    used: frozenset[tuple[str, int]]
    """Kinds and numbers."""


def uses(leave_out: Collection[tuple[str, int]] = ()) -> Iterator[Use]:
    """Of everybody's programs, and maps that hold others, but these. Raises `KernelError`."""
    for number, descriptor in _opened(bpf.Command.PROG_GET_NEXT_ID, bpf.Command.PROG_GET_FD_BY_ID):
        if ("prog", number) in leave_out:
            continue
        yield Use("prog", number, frozenset(("map", each) for each in _maps_of(descriptor)))
    for number, descriptor in _opened(bpf.Command.MAP_GET_NEXT_ID, bpf.Command.MAP_GET_FD_BY_ID):
        if ("map", number) in leave_out:
            continue
        shape = bpf.map_shape(descriptor)
        if kind := _HOLDS.get(shape.type):
            yield Use("map", number, frozenset((kind, each) for each in _values(descriptor, shape.key_size)))


def _opened(following: bpf.Command, by_number: bpf.Command) -> Iterator[tuple[int, int]]:
    """Numbers and descriptors, each closed behind its use."""
    number = 0
    while True:
        asked = ctypes.create_string_buffer(struct.pack("=III", number, 0, 0), 12)
        if (result := bpf.call(following, asked)) < 0:
            if result == -errno.ENOENT:
                return
            raise KernelError("listing BPF objects", -result)
        number = struct.unpack_from("=I", asked, 4)[0]
        descriptor = bpf.call(by_number, struct.pack("=III", number, 0, 0))
        if descriptor < 0:
            continue  # it has gone
        try:
            yield number, descriptor
        finally:
            os.close(descriptor)


def _maps_of(program: int) -> tuple[int, ...]:
    numbers = (ctypes.c_uint32 * _USED_MAPS)()
    info = ctypes.create_string_buffer(_INFO)
    struct.pack_into("=IQ", info, 52, _USED_MAPS, ctypes.addressof(numbers))  # nr_map_ids, map_ids
    asked = struct.pack("=IIQ", program, len(info), ctypes.addressof(info))
    if (result := bpf.call(bpf.Command.OBJ_GET_INFO_BY_FD, asked)) < 0:
        raise KernelError("asking for a program's maps", -result)
    return tuple(numbers[: min(_USED_MAPS, struct.unpack_from("=I", info, 52)[0])])


def _values(descriptor: int, key_bytes: int) -> Iterator[int]:
    key = bpf.next_key(descriptor, None, key_bytes)
    for _ in range(_MOST):
        if key is None:
            return
        if (value := bpf.lookup(descriptor, key, 4)) is not None:
            yield int.from_bytes(value, "little")
        key = bpf.next_key(descriptor, key, key_bytes)
