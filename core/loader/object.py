"""What the compiler makes of a translation unit, as a value: no map of it exists, and no kernel was asked."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

from ..kernel.bpf import MapShape

_MAP_LOAD, _MAP_DESCRIPTOR = 0x18, 1
"""Operation code and source register of an instruction that holds a map's descriptor (BPF_PSEUDO_MAP_FD)."""
_INSTRUCTION = struct.Struct("<BBhi")


@dataclass(frozen=True, slots=True)
class Object:
    """One compiled translation unit."""

    maps: Mapping[str, MapShape]
    """By name, in the order that numbers them."""
    functions: Mapping[str, bytes]
    """Instructions by name; where one holds a map, it holds the map's number."""
    compiler: str = ""
    """What compiled it, for people."""

    def to_json(self) -> dict[str, Any]:
        """The object as the cache's file holds it."""
        return {
            "compiler": self.compiler,
            "maps": {name: list(astuple(shape)) for name, shape in self.maps.items()},
            "functions": {name: base64.b64encode(code).decode() for name, code in self.functions.items()},
        }

    @classmethod
    def from_json(cls, data: Any) -> Object:
        """The inverse of `to_json`. Raises `ValueError` for what it did not make."""
        try:
            maps = {str(name): _shape(each) for name, each in data["maps"].items()}
            functions = {str(name): base64.b64decode(code, validate=True) for name, code in data["functions"].items()}
            made = cls(maps, functions, str(data["compiler"]))
        except (KeyError, TypeError, AttributeError, binascii.Error) as error:
            raise ValueError(f"holds no compiled unit: {error!r}") from error
        for name, code in functions.items():
            if len(code) % 8 or not code:
                raise ValueError(f"holds no instructions of {name}")
            with_maps(code, {number: number for number in range(len(maps))})
        return made


def _shape(values: Any) -> MapShape:
    *numbers, name = values
    if len(numbers) != 5 or not all(type(each) is int and 0 <= each < 1 << 32 for each in numbers):
        raise TypeError(f"{values!r} is not a shape of a map")
    type_, key_size, value_size, entries, flags = numbers
    return MapShape(type_, key_size, value_size, entries, flags, str(name))


def with_maps(code: bytes, numbers: Mapping[int, int]) -> bytes:
    """The instructions with other numbers of maps. Raises `ValueError` for one that is not among them."""
    changed = bytearray(code)
    offset = 0
    while offset < len(changed):
        operation, registers, _, number = _INSTRUCTION.unpack_from(changed, offset)
        if (operation, registers >> 4) == (_MAP_LOAD, _MAP_DESCRIPTOR):
            try:
                struct.pack_into("<i", changed, offset + 4, numbers[number])
            except KeyError as error:
                raise ValueError(f"an instruction holds a map number {number}, which no map has") from error
        offset += 16 if operation == _MAP_LOAD else 8
    return bytes(changed)
