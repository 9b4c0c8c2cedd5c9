"""One declaration of a record for C, Python, JSON Schema and the manual.

A record is a frozen dataclass whose fields carry an `Annotated` wire type:

    @dataclass(frozen=True, slots=True)
    class Open(Event):
        inode: Annotated[Hex64, Doc("inode number of the file")]
        write: Annotated[Bool, Doc("opened for writing")]
        pad: Pad7 = b""

`Layout` reads it once and offers the C struct with an assertion on every offset, the decoder, the encoder (for tests
and tools), the JSON Schema that policies see, and the rows of the manual's table. Implicit padding is refused: what the
compiler would insert silently could carry stale kernel bytes to user space. Integers are little-endian, as on every
machine that KRIe runs on.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import cache
from inspect import get_annotations
from typing import Annotated, Any, cast, get_args, get_origin

from ..errors import DecodeError, LayoutError
from .wire import NAME_BYTES, WIDTHS, Bitmap, Bytes, Chars, WireType

_C_KEYWORDS = frozenset(
    """auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while""".split()
)


@dataclass(frozen=True, slots=True)
class Doc:
    """What a field means, with its unit; shown in the manual and in the JSON Schema."""

    text: str


@dataclass(frozen=True, slots=True)
class Inline:
    """Marks a field that programs know before they send the record: rules about it can be decided in the kernel.

    For numbers (but addresses), booleans, enumerations, flag sets, and text that is compared as a whole.
    """


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a laid-out record."""

    name: str
    wire: WireType
    offset: int
    size: int
    doc: str
    inline: bool


def _wire_type(owner: str, name: str, hint: Any) -> tuple[WireType, str, bool]:
    metadata = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    inline = any(isinstance(each, Inline) for each in metadata)
    wires = [each for each in metadata if not isinstance(each, Doc | Inline)]
    if len(wires) != 1 or not hasattr(wires[0], "code"):
        raise LayoutError(owner, name, f"{hint!r} is not a wire type; use one of krie's, such as U32 or Bool")
    wire = wires[0]
    if inline and (isinstance(wire, Bytes | Bitmap) or (isinstance(wire, Chars) and wire.count > NAME_BYTES)):
        raise LayoutError(owner, name, f"cannot be inline: no number, and no text of up to {NAME_BYTES} bytes")
    return wire, next((each.text for each in metadata if isinstance(each, Doc)), ""), inline


@cache
def _annotations(record: type[Any]) -> dict[str, Any]:
    """What one class itself annotates; evaluated once, since those of `Event` are part of every event."""
    return get_annotations(record, eval_str=True)


class Layout:
    """The memory layout of one record class. Raises `LayoutError` for what cannot be laid out without surprises."""

    def __init__(self, record: type[Any], *, alignment: int | None = 8) -> None:
        """Read `record`, a dataclass; its size must be a multiple of `alignment` bytes, or of its widest number."""
        self.record = record
        name = record.__name__
        if not dataclasses.is_dataclass(record):
            raise LayoutError(name, "", "is not a dataclass")
        hints = {field: hint for base in reversed(record.__mro__) for field, hint in _annotations(base).items()}
        offset = 0
        fields: list[Field] = []
        for each in dataclasses.fields(record):
            if each.name in _C_KEYWORDS:
                raise LayoutError(name, each.name, "is a word of C; give the field another name")
            wire, doc, inline = _wire_type(name, each.name, hints[each.name])
            width = WIDTHS.get(wire.code, 1)
            if offset % width:
                own = (before for before in fields if before.name in _annotations(record))
                raise LayoutError(name, each.name, f"is not aligned to {width} bytes; {_move(own, width)}")
            size = struct.calcsize("<" + wire.code)
            if fields and _is_padding(fields[-1]):
                fix = "order the fields by size, the largest first"
                raise LayoutError(name, fields[-1].name, f"padding must come last; {fix}")
            fields.append(Field(each.name, wire, offset, size, doc, inline))
            offset += size
        alignment = alignment or max(WIDTHS.get(each.wire.code, 1) for each in fields)
        if offset % alignment:
            raise LayoutError(
                name, fields[-1].name, f"the record has {offset} bytes, {_size_remedy(fields[-1], alignment)}"
            )
        self.size = offset
        self.fields = tuple(fields)
        self._struct = struct.Struct("<" + "".join(each.wire.code for each in fields))
        self.data_fields = tuple(each for each in fields if not _is_padding(each))
        """The fields without padding: those that Python, JSON and the manual know."""
        self._converters = tuple(
            (index, convert)
            for index, each in enumerate(self.data_fields)
            if (convert := each.wire.from_wire()) is not None
        )

    def values(self, raw: bytes) -> list[Any]:
        """Unpack `raw` into the values of `data_fields`. Raises `DecodeError` when the size is wrong."""
        if len(raw) != self.size:
            raise DecodeError(f"{self.record.__name__} has {self.size} bytes", raw)
        values = list(self._struct.unpack(raw))
        for index, convert in self._converters:
            values[index] = convert(values[index])
        return values

    def offset(self, name: str) -> int:
        """Where a field begins."""
        return next(each.offset for each in self.fields if each.name == name)

    def raw(self, raw: bytes) -> dict[str, Any]:
        """The same without turning them into Python values, by name."""
        names = (each.name for each in self.data_fields)
        return dict(zip(names, self._struct.unpack(raw), strict=True))

    def encode(self, instance: Any) -> bytes:
        """Pack an instance; the inverse of decoding for every value that its wire type can hold."""
        return self._struct.pack(*(each.wire.to_wire(getattr(instance, each.name)) for each in self.data_fields))

    def c_struct(self, tag: str) -> str:
        """The C definition of `struct TAG`, followed by assertions on its size and on every offset."""
        lines = [f"struct {tag} {{"]
        for each in self.fields:
            array = f"[{each.wire.count}]" if each.wire.count else ""
            lines.append(f"    {each.wire.ctype} {each.name}{array};")
        lines.append("};")
        for each in self.fields:
            lines.append(
                f"_Static_assert(__builtin_offsetof(struct {tag}, {each.name}) == {each.offset}, "
                f'"{tag}.{each.name} moved");'
            )
        lines.append(f'_Static_assert(sizeof(struct {tag}) == {self.size}, "{tag} has implicit padding");')
        return "\n".join(lines) + "\n"


_laid_out = cache(Layout)


def layout_of(record: type[Any]) -> Layout:
    """The layout of a class, laid out once. Raises `LayoutError`."""
    return _laid_out(cast("Hashable", record))


def _is_padding(each: Field) -> bool:
    return isinstance(each.wire, Bytes) and each.wire.padding


def _move(own: Iterable[Field], width: int) -> str:
    """Where a field of this width goes. `own`: those before it that its class itself declares, not the header's."""
    order = "the fields by size, the largest first"
    first = next((each.name for each in own if WIDTHS.get(each.wire.code, 1) < width), "")
    return f"move it before {first}: order {order}" if first else f"order {order}"


def _size_remedy(last: Field, alignment: int) -> str:
    """How to fix a record whose size is not a multiple of `alignment`."""
    used = last.offset if _is_padding(last) else last.offset + last.size
    wanted = -used % alignment
    of_them = f"which is not a multiple of {alignment}; "
    if not _is_padding(last):
        return f'{of_them}add `pad: Pad{wanted} = b""` behind it'
    return of_them + (f"make it Pad{wanted}" if wanted else "remove it")
