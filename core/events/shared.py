"""What programs and user space share besides records: keys and values of maps, and numbers that have a name.

    @dataclass(frozen=True, slots=True)
    class Settings(Shared):
        C_NAME: ClassVar[str] = "my_plugin_settings"
        limit: Annotated[U32, Doc("of what")]
        pad: Pad4 = b""

Named in `Sensor.shared`, it is a struct in C with an assertion on every offset, and `encode` and `decode` here. It is
laid out as records are: see `krie.events.layout`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from functools import cache
from itertools import chain, islice, repeat
from typing import Any, ClassVar, Self, cast

from .layout import Layout
from .wire import Integer, Json


class Shared:
    """Base of the dataclasses that are structs in C. Raises `LayoutError` for what cannot be laid out."""

    __slots__ = ()
    C_NAME: ClassVar[str]
    """The struct's tag."""

    @classmethod
    def layout(cls) -> Layout:
        """How it lies in memory."""
        return _laid_out(cast("Hashable", cls))

    @classmethod
    def size(cls) -> int:
        """How many bytes it has."""
        return cls.layout().size

    @classmethod
    def decode(cls, raw: bytes | None) -> Self:
        """The inverse of `encode`; of None, which is what a map has not, all zeros. Raises `DecodeError`."""
        layout = cls.layout()
        return cls(*layout.values(raw if raw is not None else bytes(layout.size)))

    @classmethod
    def total(cls, values: bytes) -> Self:
        """The sums over all CPUs of a per-CPU value, which is nothing but numbers. Raises `DecodeError`."""
        layout = cls.layout()
        columns = zip(*(layout.values(each) for each in _cut(values, layout.size)), strict=True)
        return cls(*map(sum, columns))

    @classmethod
    def each(cls, values: bytes) -> Iterator[Self]:
        """Those of all CPUs of a per-CPU value. Raises `DecodeError`."""
        return map(cls.decode, _cut(values, cls.size()))

    def encode(self) -> bytes:
        """The struct as bytes."""
        return self.layout().encode(self)


def _cut(values: bytes, size: int) -> Iterator[bytes]:
    return (values[at : at + size] for at in range(0, len(values), size))


@cache
def _laid_out(record: type[Any]) -> Layout:
    return Layout(record, alignment=None)


@dataclass(frozen=True, slots=True)
class Nested:
    """A field that is another shared struct, or an array of `count` of them: a tuple in Python.

    It is first in its own struct, or behind fields whose sizes add up to a multiple of 8 bytes.
    """

    record: type[Shared]
    count: int = 0

    @property
    def ctype(self) -> str:  # noqa: D102 - see WireType
        return f"struct {self.record.C_NAME}"

    @property
    def code(self) -> str:  # noqa: D102
        return f"{max(1, self.count) * self.record.size()}s"

    def from_wire(self) -> Callable[[bytes], Any]:  # noqa: D102
        return (lambda raw: tuple(self.record.each(raw))) if self.count else self.record.decode

    def to_wire(self, value: Any) -> bytes:
        """Structs that are left out at the end are zeros, as `struct` fills them up."""
        return b"".join(each.encode() for each in value) if self.count else bytes(value.encode())

    def to_json(self) -> None:
        """No record has such a field."""
        return

    def schema(self) -> dict[str, Json]:
        """No record has such a field."""
        return {}


@dataclass(frozen=True, slots=True)
class Array:
    """A field that is an array of `count` numbers of one width; a tuple in Python."""

    number: str
    """The `struct` format of each, such as `Q`."""
    count: int

    @property
    def ctype(self) -> str:  # noqa: D102 - see WireType
        return Integer(self.number).ctype

    @property
    def code(self) -> str:  # noqa: D102
        return f"{struct.calcsize(f'<{self.count}{self.number}')}s"

    def from_wire(self) -> Callable[[bytes], tuple[int, ...]]:  # noqa: D102
        return struct.Struct(f"<{self.count}{self.number}").unpack

    def to_wire(self, value: Iterable[int]) -> bytes:
        """Numbers that are left out at the end are zeros."""
        return struct.pack(f"<{self.count}{self.number}", *islice(chain(value, repeat(0)), self.count))

    def to_json(self) -> None:
        """No record has such a field."""
        return

    def schema(self) -> dict[str, Json]:
        """No record has such a field."""
        return {}


@dataclass(frozen=True, slots=True)
class Memory:
    """A field that is a copy of memory: an array of `count` numbers of 64 bits in C, and bytes in Python."""

    count: int
    ctype: str = field(default="__u64", init=False)

    @property
    def code(self) -> str:  # noqa: D102 - see WireType
        return f"{8 * self.count}s"

    def from_wire(self) -> None:  # noqa: D102
        return

    def to_wire(self, value: bytes) -> bytes:  # noqa: D102
        return value

    def to_json(self) -> None:
        """No record has such a field."""
        return

    def schema(self) -> dict[str, Json]:
        """No record has such a field."""
        return {}


def constants(prefix: str, names: type[IntEnum] | type[IntFlag]) -> Mapping[str, int]:
    """The members of an enumeration as constants for C: `PREFIX_MEMBER`."""
    return {f"{prefix}_{name}": int(value) for name, value in names.__members__.items()}


def declarations(structs: Iterable[type[Shared]]) -> str:
    """The C of these structs, each behind those that it has within."""
    return "\n".join(each.layout().c_struct(each.C_NAME) for each in structs)
