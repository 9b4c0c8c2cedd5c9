"""Wire types: how one field of a record looks in memory, in Python, in JSON and in its schema.

The aliases at the end are what event classes are annotated with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol, TypeAlias

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None


class WireType(Protocol):
    """How one field looks in memory, in Python and in JSON. The public instances are the aliases below."""

    @property
    def ctype(self) -> str:
        """The C type's name, without array brackets."""

    @property
    def count(self) -> int:
        """Length of the C array; 0 for a scalar."""

    @property
    def code(self) -> str:
        """The `struct` format, such as `I` or `16s`."""

    def from_wire(self) -> Callable[[Any], Any] | None:
        """Turns what `struct` unpacked into the Python value; None where it is that already."""

    def to_wire(self, value: Any) -> Any:
        """Turns the Python value into what `struct` packs."""

    def to_json(self) -> Callable[[Any], Json] | None:
        """Turns the Python value into JSON; None where it is that already."""

    def schema(self) -> dict[str, Json]:
        """The JSON Schema of `to_json`'s answer."""


NAME_BYTES = 128
"""Longest text that can be an inline field, with its NUL."""
WIDTHS = {"B": 1, "H": 2, "I": 4, "Q": 8, "b": 1, "h": 2, "i": 4, "q": 8}
"""Bytes by code."""
_CTYPES = {"B": "__u8", "H": "__u16", "I": "__u32", "Q": "__u64", "b": "__s8", "h": "__s16", "i": "__s32", "q": "__s64"}


def _hex(value: int) -> str:
    return f"0x{value:016x}"


def text_of(raw: bytes) -> str:
    r"""Decode a C string injectively: different bytes before the first NUL give different text.

    Backslashes are doubled and bytes that are not UTF-8 become `\xNN`, so that a policy which compares text can not be
    fooled by bytes that a lossy decoder would fold together.
    """
    return raw.partition(b"\0")[0].replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def bytes_of(text: str) -> bytes | None:
    """The inverse of `text_of`: the C string that decodes to this text; None where none does."""
    raw = re.sub(
        rb"\\(\\|x([0-9a-f]{2}))",
        lambda found: b"\\" if found[2] is None else bytes([int(found[2], 16)]),
        text.encode("utf-8", "surrogatepass"),
    )
    return raw if text_of(raw) == text else None


@dataclass(frozen=True, slots=True)
class Integer:
    """A plain integer; `hexadecimal` ones (addresses) travel as strings in JSON, which rounds above 2**53."""

    code: str
    hexadecimal: bool = False
    count: int = field(default=0, init=False)

    @property
    def ctype(self) -> str:  # noqa: D102 - see WireType
        return _CTYPES[self.code]

    def from_wire(self) -> None:  # noqa: D102
        return None

    def to_wire(self, value: int) -> int:  # noqa: D102
        return value

    def to_json(self) -> Callable[[int], Json] | None:  # noqa: D102
        return _hex if self.hexadecimal else None

    def schema(self) -> dict[str, Json]:  # noqa: D102
        if self.hexadecimal:
            return {"type": "string", "pattern": "^0x[0-9a-f]{16}$"}
        bits = 8 * WIDTHS[self.code]
        if self.code.islower():
            return {"type": "integer", "minimum": -(1 << (bits - 1)), "maximum": (1 << (bits - 1)) - 1}
        return {"type": "integer", "minimum": 0, "maximum": (1 << bits) - 1}


@dataclass(frozen=True, slots=True)
class Boolean:
    """One byte; anything but zero is true."""

    ctype: str = field(default="__u8", init=False)
    count: int = field(default=0, init=False)
    code: str = field(default="B", init=False)

    def from_wire(self) -> Callable[[int], bool]:  # noqa: D102
        return bool

    def to_wire(self, value: bool) -> int:  # noqa: D102
        return int(value)

    def to_json(self) -> None:  # noqa: D102
        return None

    def schema(self) -> dict[str, Json]:  # noqa: D102
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Chars:
    """A C string in an array of `count` bytes; see `text_of` for how it is decoded."""

    count: int
    ctype: str = field(default="char", init=False)

    @property
    def code(self) -> str:  # noqa: D102
        return f"{self.count}s"

    def from_wire(self) -> Callable[[bytes], str]:  # noqa: D102
        return text_of

    def to_wire(self, value: str) -> bytes:
        """The C string that is shown as this text; of a text that none is shown as, its own bytes."""
        raw = bytes_of(value)
        return (raw if raw is not None else value.encode("utf-8", "backslashreplace"))[: self.count]

    def cut(self, value: str) -> str:
        """A text of our own, which came out of no record, as it is, but no longer than the array, and UTF-8."""
        raw = value.partition("\0")[0].encode("utf-8", "backslashreplace")
        return raw[: self.count].decode("utf-8", "ignore")

    def to_json(self) -> None:  # noqa: D102
        return None

    def schema(self) -> dict[str, Json]:  # noqa: D102
        return {"type": "string"}


@dataclass(frozen=True, slots=True)
class Bytes:
    """Raw bytes, kept as they are in Python and as hexadecimal text in JSON. Also what explicit padding is made of."""

    count: int
    padding: bool = False
    ctype: str = field(default="__u8", init=False)

    @property
    def code(self) -> str:  # noqa: D102
        return f"{self.count}x" if self.padding else f"{self.count}s"

    def from_wire(self) -> None:  # noqa: D102
        return None

    def to_wire(self, value: bytes) -> bytes:  # noqa: D102
        return value

    def to_json(self) -> Callable[[bytes], Json]:  # noqa: D102
        return bytes.hex

    def schema(self) -> dict[str, Json]:  # noqa: D102
        return {"type": "string", "pattern": "^([0-9a-f]{2})*$"}


@dataclass(frozen=True, slots=True)
class Choice:
    """An enumeration: numbers that have a name, and `other` for those that this KRIe does not know."""

    code: str
    names: Mapping[int, str]
    count: int = field(default=0, init=False)

    @property
    def ctype(self) -> str:  # noqa: D102
        return _CTYPES[self.code]

    def from_wire(self) -> Callable[[int], str]:  # noqa: D102
        names = dict(self.names)
        return lambda number: names.get(number, "other")

    def to_wire(self, value: str) -> int:  # noqa: D102
        for number, name in self.names.items():
            if name == value:
                return number
        unused = (1 << 8 * WIDTHS[self.code]) - 1
        while unused in self.names:
            unused -= 1
        return unused

    def to_json(self) -> None:  # noqa: D102
        return None

    def schema(self) -> dict[str, Json]:  # noqa: D102
        return {"enum": list(dict.fromkeys([*sorted(set(self.names.values())), "other"]))}


@dataclass(frozen=True, slots=True)
class FlagSet:
    """Bits that have a name, as a sorted tuple of names; `unknown_bits` stands for any bit without one."""

    code: str
    names: Mapping[int, str]
    count: int = field(default=0, init=False)

    @property
    def ctype(self) -> str:  # noqa: D102
        return _CTYPES[self.code]

    def from_wire(self) -> Callable[[int], tuple[str, ...]]:  # noqa: D102
        names = sorted(self.names.items(), key=lambda item: item[1])
        known = 0
        for bit in self.names:
            known |= bit

        def decode(bits: int) -> tuple[str, ...]:
            if not bits:
                return ()
            found = tuple(name for bit, name in names if bits & bit)
            return (*found, "unknown_bits") if bits & ~known else found

        return decode

    def to_wire(self, value: tuple[str, ...]) -> int:  # noqa: D102
        bits = 0
        for bit, name in self.names.items():
            bits |= bit if name in value else 0
        return bits

    def to_json(self) -> Callable[[tuple[str, ...]], Json]:  # noqa: D102
        return list

    def schema(self) -> dict[str, Json]:  # noqa: D102
        return {"type": "array", "items": {"enum": [*sorted(self.names.values()), "unknown_bits"]}, "uniqueItems": True}


@dataclass(frozen=True, slots=True)
class Bitmap:
    """Numbers as bits of `count` bytes, lowest first: a tuple of their names, or of digits where one has none."""

    count: int
    names: tuple[str, ...]
    ctype: str = field(default="__u8", init=False)

    @property
    def code(self) -> str:  # noqa: D102
        return f"{self.count}s"

    def from_wire(self) -> Callable[[bytes], tuple[str, ...]]:  # noqa: D102
        names = (*self.names, *map(str, range(len(self.names), 8 * self.count)))

        def decode(raw: bytes) -> tuple[str, ...]:
            bits = int.from_bytes(raw, "little")
            return tuple(names[number] for number in range(bits.bit_length()) if bits >> number & 1)

        return decode

    def to_wire(self, value: tuple[str, ...]) -> bytes:  # noqa: D102
        numbers = {self.names.index(each) if each in self.names else int(each) for each in value}
        return sum(1 << number for number in numbers).to_bytes(self.count, "little")

    def to_json(self) -> Callable[[tuple[str, ...]], Json]:  # noqa: D102
        return list

    def schema(self) -> dict[str, Json]:  # noqa: D102
        return {"type": "array", "items": {"type": "string"}, "uniqueItems": True}


U8 = Annotated[int, Integer("B")]
U16 = Annotated[int, Integer("H")]
U32 = Annotated[int, Integer("I")]
U64 = Annotated[int, Integer("Q")]
S32 = Annotated[int, Integer("i")]
S64 = Annotated[int, Integer("q")]
Hex64 = Annotated[int, Integer("Q", hexadecimal=True)]
Bool = Annotated[bool, Boolean()]
Comm = Annotated[str, Chars(16)]

Pad1 = Annotated[bytes, Bytes(1, padding=True)]
Pad2 = Annotated[bytes, Bytes(2, padding=True)]
Pad3 = Annotated[bytes, Bytes(3, padding=True)]
Pad4 = Annotated[bytes, Bytes(4, padding=True)]
Pad5 = Annotated[bytes, Bytes(5, padding=True)]
Pad6 = Annotated[bytes, Bytes(6, padding=True)]
Pad7 = Annotated[bytes, Bytes(7, padding=True)]
