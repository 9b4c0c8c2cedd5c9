"""A kernel's types, from its BTF, through libbpf: C definitions, field offsets, function ids."""

from __future__ import annotations

import ctypes as C
import itertools
import re
import struct
import weakref
from collections.abc import Iterable, Iterator

from ..errors import KernelError
from ..exhaustion import exhausted
from ..kernel_files import KernelFile
from ..libc import libc
from .btf_slice import ENUM, ENUM64, FUNC, STRUCT, TYPE_TAG, TYPEDEF, UNION, VAR, Type, numbers, slice_digest

VMLINUX = KernelFile("/sys/kernel/btf/vmlinux")
_NAMED = (STRUCT, UNION, ENUM, TYPEDEF, ENUM64)
_TRANSPARENT = frozenset({TYPEDEF, 9, 10, 11, TYPE_TAG})  # and volatile, const, restrict
_HEADER = struct.Struct("=III")
_PRINTF = C.CFUNCTYPE(None, C.c_void_p, C.c_char_p, C.c_void_p)
_UNNAMED = re.compile(r"^(\s*)(?:unsigned |signed )?(long|int|short|char): (\d+);$", re.MULTILINE)
_BITS = {"long": 64, "int": 32, "short": 16, "char": 8}
_UNNAMED_LEFT = re.compile(r"^\s*\w+ ?: \d+;$", re.MULTILINE)
_DEFINITION = re.compile(
    r"^(?:(?:struct|union|enum) (?P<tag>\w+) \{$(?:.|\n)*?^\}[^;\n]*;|(?:struct|union|enum) (?P<forward>\w+);"
    r"|typedef (?:.|\n)*?\b(?P<typedef>\w+)(?:\[\d*\])*(?:\)\(.*\))?;)\n+",
    re.MULTILINE,
)


def _library() -> C.CDLL:
    try:
        library = C.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise KernelError("loading libbpf.so.1", exhausted(error), f"install the package libbpf1 ({error})") from error
    library.btf__parse.restype = C.c_void_p
    library.btf__parse.argtypes = [C.c_char_p, C.c_void_p]
    library.btf__new.restype = C.c_void_p
    library.btf__new.argtypes = [C.c_char_p, C.c_uint32]
    library.btf__free.argtypes = [C.c_void_p]
    library.btf__find_by_name_kind.argtypes = [C.c_void_p, C.c_char_p, C.c_uint32]
    library.btf__type_by_id.restype = C.c_void_p
    library.btf__type_by_id.argtypes = [C.c_void_p, C.c_uint32]
    library.btf__name_by_offset.restype = C.c_char_p
    library.btf__name_by_offset.argtypes = [C.c_void_p, C.c_uint32]
    library.btf__resolve_size.restype = C.c_int64
    library.btf__resolve_size.argtypes = [C.c_void_p, C.c_uint32]
    library.btf_dump__new.restype = C.c_void_p
    library.btf_dump__new.argtypes = [C.c_void_p, _PRINTF, C.c_void_p, C.c_void_p]
    library.btf_dump__free.argtypes = [C.c_void_p]
    library.btf_dump__dump_type.argtypes = [C.c_void_p, C.c_uint32]
    return library


class Btf:
    """One parsed BTF file. Raises `KernelError` when the kernel has none."""

    def __init__(self, path: str | KernelFile = VMLINUX, raw: bytes | None = None) -> None:
        """Parse the file; 25 ms for a whole kernel. `raw`: its content, where that is known already."""
        self._lib = _library()
        try:
            handle = self._parsed(path if raw is None else raw)
        except OSError as error:
            raise KernelError(
                f"reading {path}", error.errno or 0, "KRIe needs a kernel with CONFIG_DEBUG_INFO_BTF"
            ) from error
        self._btf = C.c_void_p(handle)
        weakref.finalize(self, self._lib.btf__free, self._btf)  # 5 MiB and more
        self._ids: dict[str, int] = {}  # libbpf would compare with the name of every type, each time

    def _parsed(self, source: str | KernelFile | bytes) -> int:
        if isinstance(source, str):
            handle = self._lib.btf__parse(source.encode(), None)
        else:
            raw = source if isinstance(source, bytes) else source.read_bytes()
            handle = self._lib.btf__new(raw, len(raw))
        if not handle:
            raise OSError(C.get_errno(), "")
        return int(handle)

    def function_id(self, name: str) -> int:
        """BTF id of a kernel function, 0 when there is none."""
        return max(0, int(self._lib.btf__find_by_name_kind(self._btf, name.encode(), FUNC)))

    def name(self, type_id: int) -> str:
        """Name of the type or function with this id; empty when there is none."""
        try:
            return self.type(type_id).name
        except KeyError:
            return ""

    def has_type(self, name: str) -> bool:
        """Whether a struct, union, enum or typedef has this name."""
        return self.find(name) > 0

    def offset(self, type_name: str, path: str) -> int | None:
        """Byte offset of a field such as `f_path.dentry`, through anonymous members; None when there is none."""
        total, type_id = 0, self.find(type_name)
        for part in path.split("."):
            found = self._member(type_id, part) if type_id > 0 else None
            if found is None:
                return None
            bits, type_id = found
            if bits % 8:
                return None
            total += bits // 8
        return total

    def size(self, type_name: str, path: str = "") -> int | None:
        """Bytes of a type, or of its field such as `avc_cache.slots`; None when there is none, or it is a bit-field."""
        type_id = self.find(type_name)
        for part in filter(None, path.split(".")):
            found = self._member(type_id, part) if type_id > 0 else None
            if found is None:
                return None
            type_id = found[1]
        return self._bytes(type_id) if type_id > 0 else None

    def variable_size(self, name: str) -> int | None:
        """Bytes of a variable; None where BTF does not know it, as most kernels only tell of per-CPU ones."""
        type_id = int(self._lib.btf__find_by_name_kind(self._btf, name.encode(), VAR))
        return self._bytes(self.type(type_id).number) if type_id > 0 else None

    def definitions(self, names: Iterable[str], without: Iterable[str] = ()) -> str:
        """C definitions of the types and of all that they contain by value, but not those named in `without`.

        Types that this kernel does not have are left out. libbpf pads with unnamed bit-fields, which BCC 0.26 lays out
        wrongly (every field behind them is read 16 or 32 bytes off on 5.10 and 7.3, while offsetof stays right): they
        become char arrays or get a name, and any that is left is refused.
        """
        pieces: list[bytes] = []
        text = C.create_string_buffer(1 << 16)
        vsnprintf = libc["vsnprintf"]
        vsnprintf.argtypes = [C.c_char_p, C.c_size_t, C.c_char_p, C.c_void_p]

        def emit(_context: object, form: bytes, arguments: int) -> None:
            length = vsnprintf(text, len(text), form, arguments)
            pieces.append(text.raw[: min(length, len(text) - 1)])

        callback = _PRINTF(emit)
        dump = self._lib.btf_dump__new(self._btf, callback, None, None)
        try:
            for name in names:
                if (type_id := self.find(name)) > 0:
                    self._lib.btf_dump__dump_type(C.c_void_p(dump), type_id)
        finally:
            self._lib.btf_dump__free(C.c_void_p(dump))
        source = named_padding(b"".join(pieces).decode())
        dropped = frozenset(without)
        return _DEFINITION.sub(
            lambda match: "" if match["tag"] in dropped or match["typedef"] in dropped else match[0], source
        )

    def digest(self, names: Iterable[str], without: Iterable[str] = ()) -> str:
        """Names what `definitions` prints of these types, whatever release of libbpf would print it."""
        return slice_digest(self, names, frozenset(without))

    def values(self, enum: str) -> frozenset[str]:
        """The names of an enum's values; none where there is no such enum."""
        return frozenset(self.numbers(enum))

    def numbers(self, enum: str) -> dict[str, int]:
        """The lower 32 bits of an enum's values, by their names; none where there is no such enum."""
        return numbers(self, enum)

    def find(self, name: str) -> int:
        """Id of the struct, union, enum or typedef of this name; not above 0 when there is none."""
        if name not in self._ids:
            self._ids[name] = self._search(name)
        return self._ids[name]

    def type(self, type_id: int) -> Type:
        """The type with this id. Raises `KeyError` where there is none."""
        place = self._lib.btf__type_by_id(self._btf, type_id)
        if not place:
            raise KeyError(type_id)
        name, info, number = _HEADER.unpack(C.string_at(place, _HEADER.size))
        return Type(
            self.text(name) if name else "",
            info >> 24 & 0x1F,
            bool(info >> 31),
            info & 0xFFFF,
            number,
            place + _HEADER.size,
        )

    def words(self, type_: Type, form: str, count: int) -> Iterator[tuple[int, ...]]:
        """What lies behind a type's header: `count` times what the form of `struct` says."""
        return struct.iter_unpack(form, C.string_at(type_.behind, count * struct.calcsize(form)))

    def text(self, offset: int) -> str:
        """A name by its place among all names."""
        return (self._lib.btf__name_by_offset(self._btf, offset) or b"").decode()

    def _bytes(self, type_id: int) -> int | None:
        size = int(self._lib.btf__resolve_size(self._btf, type_id))
        return size if size >= 0 else None

    def _search(self, name: str) -> int:
        for kind in _NAMED:
            if (type_id := int(self._lib.btf__find_by_name_kind(self._btf, name.encode(), kind))) > 0:
                return type_id
        return 0

    def _members(self, type_id: int) -> Iterator[tuple[str, int, int]]:
        """Name, type and offset in bits (-1 for bit-fields) of each member; the ids of typedefs are followed."""
        type_ = self.type(type_id)
        while type_.kind in _TRANSPARENT:
            type_ = self.type(type_.number)
        if type_.kind not in (STRUCT, UNION):
            return
        for name, member, place in self.words(type_, "=III", type_.length):
            offset = place & 0xFFFFFF if type_.flag else place
            yield self.text(name), member, -1 if type_.flag and place >> 24 else offset

    def _member(self, type_id: int, name: str) -> tuple[int, int] | None:
        for member_name, member_type, bits in self._members(type_id):
            if member_name == name:
                return None if bits < 0 else (bits, member_type)
            if not member_name and (inner := self._member(member_type, name)) is not None:
                return bits + inner[0], inner[1]
        return None


def named_padding(source: str) -> str:
    """Give a name to every bit-field that pads; raises `KernelError` when one is of a form that is not known."""
    numbers = itertools.count()

    def named(match: re.Match[str]) -> str:
        indent, type_, bits, name = match[1], match[2], int(match[3]), f"krie_pad{next(numbers)}"
        if bits == 0:
            return f"{indent}{type_} {name}[0];"
        if bits == _BITS[type_]:
            return f"{indent}{type_} {name};"  # not an array: it begins where its type may, which is a gap too
        if bits % 8 == 0:
            return f"{indent}char {name}[{bits // 8}];"
        return f"{indent}unsigned {'long' if bits > 32 else 'int'} {name}: {bits};"

    padded = _UNNAMED.sub(named, source)
    if (left := _UNNAMED_LEFT.search(padded)) is not None:
        raise KernelError(
            "slicing this kernel's types", 0, f"BCC would misread the unnamed bit-field {left[0].strip()!r}"
        )
    return padded
