"""Who calls a function of the kernel, out of the kernel's own code. Pure functions over bytes and symbols.

No disassembler is needed. Every direct call, jump and conditional jump to 32 bits further is looked at, at whatever
byte it seems to begin: what is none hits a given function by chance once in 2^32 bytes. A function that jumps to one
that is wanted (a tail call) leaves the return address of its own caller there, so its callers count too, and so on.

A call that a kprobe stands on begins with a breakpoint, and the 4 bytes behind it are still there: such count as call
and as jump. Where a function on the way has its address taken (in data, or by an instruction), calls by a pointer may
reach it, which nothing here can tell: such functions are named, and their indirect callers come from a lock file.
"""

from __future__ import annotations

import re
import struct
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

_BRANCH = re.compile(rb"[\xe8\xe9\xcc](?=...[\x00\x01\xfe\xff])", re.DOTALL)
_CONDITIONAL = re.compile(rb"[\x0f\xcc][\x80-\x8f](?=...[\x00\x01\xfe\xff])", re.DOTALL)
"""The highest byte of the distance: the kernel's text is shorter than 32 MiB."""
_CALL, _BREAKPOINT = 0xE8, 0xCC
_LOAD_ADDRESS = re.compile(rb"[\x48\x4c]\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]")
"""`lea` of an address relative to the instruction pointer."""
_INDIRECT = re.compile(rb"\xff(?=[\x10-\x17\x50-\x57\x90-\x97\xd0-\xd7])", re.DOTALL)
THUNKS = ("__x86_indirect_", "__SCT__")
"""Begins of the names of code that stands for a call by a pointer."""
_STATIC_CALL = "__SCT__"
"""Trampolines of static calls: what takes their address is the list by which the kernel patches the calls, and those
are direct."""
_ENTRIES = (0, 4, -9, -10)
"""Where calls enter a function: at its begin, behind an endbr64, or before it, in the accounting that the kernel puts
there against Retbleed (call thunks, e81dc127ef69)."""
_DISTANCE = struct.Struct("<i")
_SHORT = 127


@dataclass(frozen=True, slots=True)
class Callers:
    """The callers of one function."""

    returns: frozenset[int]
    """Return addresses that a direct call leaves at its entry."""
    taken: frozenset[int]
    """Functions that lead to it, or itself, whose address is taken: calls by a pointer may reach it through them."""
    through: frozenset[int]
    """Functions that lead to it by a jump, and itself."""


class Code:
    """The text of one kernel, with the names in it."""

    def __init__(self, text: bytes, base: int, symbols: Iterable[tuple[int, str]], data: Sequence[bytes] = ()) -> None:
        """`symbols`: address and name of the functions of the kernel itself; those outside of the text are left out.
        `data`: where pointers to functions may lie."""
        self.text, self.base, self._data = text, base, data
        self.has_data = bool(data)
        """Whether pointers in data were looked for: without CONFIG_KALLSYMS_ALL nobody knows where data lies."""
        inside = sorted((address, name) for address, name in symbols if base <= address < base + len(text))
        self._starts = array("Q", sorted({address for address, _ in inside}))
        count = Counter(name for _, name in inside)
        self._by_name: dict[str, int] = {name: address for address, name in inside if count[name] == 1}
        self._names: dict[int, str] = {}
        for name, address in sorted(self._by_name.items(), reverse=True):
            self._names[address] = name
        self._named = array("Q", sorted(self._names))
        self._branches: tuple[array[int], array[int], bytearray] | None = None

    def address(self, name: str) -> int:
        """Of a function, or of `function+0xOFFSET`; 0 where there is none of this name, or several."""
        function, _, offset = name.partition("+")
        start = self._by_name.get(function, 0)
        return start + int(offset, 16) if start and offset else start

    def name(self, address: int) -> str:
        """The nearest function before it that has a name of its own, and how far behind its begin."""
        index = bisect_right(self._named, address) - 1
        if index < 0:
            return f"{address:#x}"
        start = self._named[index]
        return f"{self._names[start]}+{address - start:#x}" if address > start else self._names[start]

    def callers(self, functions: Collection[str], jumps: Mapping[str, Collection[str]]) -> dict[str, Callers]:
        """By function, for those that this kernel has under one address.

        `jumps`: functions that are known to jump by a pointer, by the function that they come to.
        """
        by_pointer = {
            self._by_name[name]: {self._by_name[each] for each in jumping if each in self._by_name}
            for name, jumping in jumps.items()
            if name in self._by_name
        }
        wanted = {each: address for each in functions if (address := self._by_name.get(each))}
        calls: dict[int, frozenset[int]] = {}
        jumpers: dict[int, frozenset[int]] = {}
        todo = set(wanted.values())
        while todo:
            found = self._sites(todo)
            for target in todo:
                returns, direct = found[target]
                calls[target] = frozenset(returns)
                found_jumpers = {self._function(each) for each in direct} | by_pointer.get(target, set())
                jumpers[target] = frozenset(found_jumpers) - {target, 0}
            todo = {each for target in todo for each in jumpers[target]} - calls.keys()
        taken = self._taken(calls)
        return {each: _closure(address, calls, jumpers, taken) for each, address in wanted.items()}

    def indirect_calls(self, name: str) -> set[int]:
        """Return addresses of the calls by a pointer in a function; none where there are several of this name."""
        start = self._by_name.get(name, 0)
        if not start:
            return set()
        index = bisect_right(self._starts, start)
        end = self._starts[index] if index < len(self._starts) else self.base + len(self.text)
        code = self.text[start - self.base : end - self.base]
        return indirect_calls(code, start, lambda target: self.name(target).startswith(THUNKS))

    def _function(self, address: int) -> int:
        index = bisect_right(self._starts, address) - 1
        return self._starts[index] if index >= 0 else 0

    def _sites(self, targets: Collection[int]) -> Mapping[int, tuple[list[int], list[int]]]:
        """By target: return addresses of calls, and addresses of jumps."""
        entries = {target + offset: target for target in targets for offset in _ENTRIES}
        found: dict[int, tuple[list[int], list[int]]] = {target: ([], []) for target in targets}
        ends, to, opcodes = self._all_branches()
        for index, address in enumerate(to):
            if (target := entries.get(address)) is not None:
                if opcodes[index] in (_CALL, _BREAKPOINT):
                    found[target][0].append(ends[index])
                if opcodes[index] != _CALL:
                    found[target][1].append(ends[index] - 1)
        for entry, target in entries.items():
            found[target][1].extend(self._short_jumps(entry))
        return found

    def _all_branches(self) -> tuple[array[int], array[int], bytearray]:
        if self._branches is None:
            ends, to, opcodes = array("Q"), array("Q"), bytearray()
            distance, text = _DISTANCE.unpack_from, self.text
            for pattern, length in ((_BRANCH, 1), (_CONDITIONAL, 2)):
                for match in pattern.finditer(text):
                    at = match.start() + length
                    ends.append(self.base + at + 4)
                    to.append(self.base + at + 4 + distance(text, at)[0])
                    opcodes.append(text[at - length] if length == 1 else 0)
            self._branches = ends, to, opcodes
        return self._branches

    def _short_jumps(self, entry: int) -> Iterable[int]:
        """Addresses of jumps to 8 bits further: from a function that lies beside it."""
        start = max(self.base, entry - 2 - _SHORT)
        for at in range(start, min(self.base + len(self.text) - 2, entry + _SHORT)):
            opcode, distance = self.text[at - self.base], self.text[at - self.base + 1]
            if (opcode == 0xEB or 0x70 <= opcode < 0x80) and at + 2 + (distance ^ 0x80) - 0x80 == entry:
                yield at

    def _taken(self, targets: Collection[int]) -> frozenset[int]:
        """Those whose address lies in data, or is made by an instruction."""
        found = set()
        for target in targets:
            pointer = struct.pack("<Q", target)
            if any(pointer in each for each in self._data) or pointer[:4] in self.text:
                found.add(target)
        for match in _LOAD_ADDRESS.finditer(self.text):
            at = match.end()
            if at + 4 <= len(self.text):
                address = self.base + at + 4 + _DISTANCE.unpack_from(self.text, at)[0]
                if address in targets:
                    found.add(address)
        return frozenset(each for each in found if not self.name(each).startswith(_STATIC_CALL))


def indirect_calls(code: bytes, start: int, is_thunk: Callable[[int], bool]) -> set[int]:
    """Return addresses of the calls by a pointer in a function that begins at `start`: of `call r/m64`, and of calls of
    a thunk that stands for one where Spectre is mitigated. Without a disassembler a few more than there are may be
    found."""
    found = {
        start + match.start() + size
        for match in _INDIRECT.finditer(code)
        for size in _indirect_sizes(code, match.start())
    }
    for match in _BRANCH.finditer(code):
        end = start + match.start() + 5
        if is_thunk(end + _DISTANCE.unpack_from(code, match.start() + 1)[0]):
            found.add(end)
    return found


def _indirect_sizes(code: bytes, at: int) -> tuple[int, ...]:
    """Of a `call r/m64` (FF /2) without its prefix: by its mod and r/m, and whether a byte for an index comes."""
    mod, rm = code[at + 1] >> 6, code[at + 1] & 7
    if mod == 3:
        return (2,)
    size = 2 + (rm == 4)
    if mod == 0:
        return (size + 4 * (rm == 5),)
    return (size + (1 if mod == 1 else 4),)


def _closure(
    address: int,
    calls: Mapping[int, frozenset[int]],
    jumpers: Mapping[int, frozenset[int]],
    taken: frozenset[int],
) -> Callers:
    seen: set[int] = set()
    todo = [address]
    while todo:
        each = todo.pop()
        if each not in seen:
            seen.add(each)
            todo += jumpers[each]
    return Callers(frozenset().union(*(calls[each] for each in seen)), frozenset(seen) & taken, frozenset(seen))
