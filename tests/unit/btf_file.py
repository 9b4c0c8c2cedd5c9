"""Writes small BTF files: what a kernel's types are, in miniature."""

import struct
from collections.abc import Iterable
from pathlib import Path

INT, POINTER, ARRAY, STRUCT, UNION, ENUM, FORWARD, TYPEDEF = range(1, 9)
FUNC, PROTOTYPE, ENUM64 = 12, 13, 19


class BtfFile:
    """Types in the order in which they were added; each method returns the new one's id."""

    def __init__(self) -> None:
        self._types: list[bytes] = []
        self._strings = b"\0"

    def integer(self, name: str, size: int = 4, encoding: int = 0) -> int:
        return self._add(name, INT, 0, size, struct.pack("=I", encoding << 24 | size * 8))

    def pointer(self, to: int) -> int:
        return self._add("", POINTER, 0, to)

    def array(self, of: int, count: int, index: int) -> int:
        return self._add("", ARRAY, 0, 0, struct.pack("=III", of, index, count))

    def struct(self, name: str, size: int, members: Iterable[tuple[str, int, int]], kind: int = STRUCT) -> int:
        """Members: name, type, offset in bytes."""
        packed = [struct.pack("=III", self._string(member), type_, 8 * place) for member, type_, place in members]
        return self._add(name, kind, len(packed), size, b"".join(packed))

    def enum(self, name: str, values: Iterable[tuple[str, int]]) -> int:
        packed = [struct.pack("=Ii", self._string(value), number) for value, number in values]
        return self._add(name, ENUM, len(packed), 4, b"".join(packed))

    def typedef(self, name: str, type_: int) -> int:
        return self._add(name, TYPEDEF, 0, type_)

    def prototype(self, returns: int, *parameters: int) -> int:
        packed = b"".join(struct.pack("=II", 0, each) for each in parameters)
        return self._add("", PROTOTYPE, len(parameters), returns, packed)

    def write(self, file: Path) -> Path:
        types = b"".join(self._types)
        header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(self._strings))
        file.write_bytes(header + types + self._strings)
        return file

    def _add(self, name: str, kind: int, length: int, number: int, behind: bytes = b"") -> int:
        self._types.append(struct.pack("=III", self._string(name), kind << 24 | length, number) + behind)
        return len(self._types)

    def _string(self, text: str) -> int:
        if not text:
            return 0
        place = len(self._strings)
        self._strings += text.encode() + b"\0"
        return place
