"""Names a slice of a kernel's types by all that can matter to what is compiled against them.

The C that libbpf prints of the same types differs from release to release, and ids of types from kernel to kernel: this
does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple, Protocol

VOID, INT, POINTER, ARRAY, STRUCT, UNION, ENUM, FORWARD, TYPEDEF = range(9)
FUNC, PROTOTYPE, VAR, FLOAT, TYPE_TAG, ENUM64 = 12, 13, 14, 16, 18, 19
_ENUMS = (ENUM, ENUM64)


class Type(NamedTuple):
    """One type as BTF has it."""

    name: str
    kind: int
    flag: bool
    length: int
    """Of members, values or parameters."""
    number: int
    """Its size, or the id of the type that it refers to."""
    behind: int
    """Address of what lies behind its header."""


class Types(Protocol):
    """What is asked of a `krie.kernel.btf.Btf`."""

    def find(self, name: str) -> int:
        """Id of the struct, union, enum or typedef of this name; not above 0 when there is none."""

    def type(self, type_id: int) -> Type:
        """The type with this id."""

    def text(self, offset: int) -> str:
        """A name by its place among all names."""

    def words(self, type_: Type, form: str, count: int) -> Iterable[tuple[int, ...]]:
        """What lies behind a type's header: `count` times what the form of `struct` says."""


def slice_digest(types: Types, names: Iterable[str], without: frozenset[str]) -> str:
    """The digest over these types and all that they contain by value, but not over those named in `without`."""
    slice_ = _Slice(types, without)
    for name in names:
        if (type_id := types.find(name)) > 0:
            slice_.refer(type_id, by_value=True)
    digest = hashlib.sha256()
    for text in slice_.definitions():
        digest.update(f"{text}\n".encode())
    return digest.hexdigest()


class _Slice:
    def __init__(self, types: Types, without: frozenset[str]) -> None:
        self._types, self._without = types, without
        self._known: dict[tuple[int, bool], str] = {}
        self._wanted: dict[int, None] = {}
        """Ids of types with a name, of which the slice needs the definition."""

    def definitions(self) -> Iterable[str]:
        done = 0
        while done < len(self._wanted):
            for type_id in list(self._wanted)[done:]:
                done += 1
                yield f"{self._types.type(type_id).name} {self._body(self._types.type(type_id))}"

    def refer(self, type_id: int, *, by_value: bool) -> str:
        """How a type is named where it is used. Those behind pointers need no definition, if they have a name."""
        if (known := self._known.get((type_id, by_value))) is None:
            known = self._known[type_id, by_value] = self._reference(type_id, by_value=by_value)
        return known

    def _reference(self, type_id: int, *, by_value: bool) -> str:
        type_ = self._types.type(type_id)
        kind, name = type_.kind, type_.name
        if kind == INT:
            ((encoding,),) = self._types.words(type_, "=I", 1)
            return f"{name}:{type_.number}:{encoding:x}"
        if kind == FORWARD or (name and not by_value and kind in (STRUCT, UNION)):
            union = type_.flag if kind == FORWARD else kind == UNION
            return f"{'union' if union else 'struct'} {name}"
        if kind in (STRUCT, UNION, *_ENUMS):
            if not name:
                return self._body(type_)
            if name not in self._without:
                self._wanted[type_id] = None
            return f"{'enum' if kind in _ENUMS else 'union' if kind == UNION else 'struct'} {name}"
        if kind == ARRAY:
            ((element, _, count),) = self._types.words(type_, "=III", 1)
            return f"[{count}]{self.refer(element, by_value=by_value)}"
        if kind == PROTOTYPE:
            parameters = (self.refer(each, by_value=False) for _, each in self._types.words(type_, "=II", type_.length))
            return f"({','.join(parameters)}){self.refer(type_.number, by_value=False)}"
        if kind in (FLOAT, VOID):
            return f"float:{type_.number}" if kind else "void"
        return f"{kind}{name}>{self.refer(type_.number, by_value=by_value and kind != POINTER)}"

    def _body(self, type_: Type) -> str:
        types = self._types
        if type_.kind in _ENUMS:
            form = "=II" if type_.kind == ENUM else "=III"
            values = (f"{types.text(name)}={number}" for name, *number in types.words(type_, form, type_.length))
            return f"{type_.number}<{','.join(values)}>"
        members = (
            f"{types.text(name)}@{place:x}{'b' if type_.flag else ''}:{self.refer(member, by_value=True)}"
            for name, member, place in types.words(type_, "=III", type_.length)
        )
        return f"{type_.kind}:{type_.number}{{{';'.join(members)}}}"


def numbers(types: Types, enum: str) -> dict[str, int]:
    """The lower 32 bits of an enum's values, by their names; none where there is no such enum."""
    found = types.type(max(0, types.find(enum)))
    if found.kind not in _ENUMS:
        return {}
    form = "=II" if found.kind == ENUM else "=III"
    return {types.text(name): number for name, number, *_ in types.words(found, form, found.length)}
