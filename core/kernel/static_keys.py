"""Static keys of what probes are attached to, compared with their branches in the kernel's text.

The kernel keeps whether a tracepoint is in use, or whether there is any program for a kind of cgroup's, twice: as a
number, and as a jump or none in the text. It changes both together, and where it finds another instruction than the
number tells, it stops with a BUG and the locks that every change of text needs (arch/x86/kernel/jump_label.c,
__jump_label_patch()). So where somebody wrote the number in memory, the next one who attaches or detaches, as the
number says, ends all changes of text, and with them the machine.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress

from ..errors import KernelError
from .btf import Btf
from .program import AttachType, Program

Read = Callable[[int, int], bytes]
"""Bytes of the kernel's memory, by address and size. Raises `KernelError`."""
_KEY = struct.Struct("=ixxxxQ")
"""enabled, entries; struct static_key, include/linux/jump_label.h."""
_ENTRY = struct.Struct("=iiq")
"""code, target, key, each counted from its own place; struct jump_entry."""
_LIKELY, _LINKED = 1, 2
"""Of the entries' address: the default; modules use the key too, and it is that of a list of entries."""
_INVERTED, _INIT = 1, 2
"""Of an entry's key: the branch is a jump while the key is off; it lies in code that only ran at boot."""
_MOST = 64
"""Entries of one key that are looked at; most have fewer than ten."""
_JUMPS, _BREAKPOINT = (0xE9, 0xEB), 0xCC
_TRACEPOINT_KEY = 8
"""Where a tracepoint has it: behind its name."""
_CGROUP = "cgroup_bpf_enabled_key"
_CHANGES_S, _LOOKS = 0.1, 5
"""How long the kernel may take between the number and the text, and how often that is waited for."""
TRACEPOINTS = frozenset({AttachType.RAW_TRACEPOINT, AttachType.TRACEPOINT, AttachType.SYSCALL})
USERS = TRACEPOINTS | {AttachType.CGROUP_SYSCTL}
"""Ways of attaching that change a static key."""


class StaticKeys:
    """Says which of them lie."""

    def __init__(self, read: Read) -> None:
        """Nothing was looked at yet."""
        self._read = read
        self._branches: dict[int, tuple[int, bool]] = {}
        self._lying: set[int] = set()

    def lying(self, keys: Iterable[int]) -> int:
        """Address of one that does not agree with the text; 0 where all do, as far as that can be known."""
        return next((each for each in keys if self._lies(each)), 0)

    def _lies(self, key: int) -> bool:
        for _ in range(1 if key in self._lying else _LOOKS):
            if not self._differs(key):
                self._lying.discard(key)
                return False
            if key in self._lying:
                return True
            time.sleep(_CHANGES_S)  # the number and the text are not written at once
        self._lying.add(key)
        return True

    def _differs(self, key: int) -> bool:
        with suppress(KernelError):
            if key not in self._branches and (branch := self._branch(key)) is not None:
                self._branches[key] = branch
            if key in self._branches:
                place, inverted = self._branches[key]
                enabled, _ = _KEY.unpack(self._read(key, _KEY.size))
                (code,) = self._read(place, 1)
                return enabled >= 0 and code != _BREAKPOINT and (code in _JUMPS) ^ inverted != (enabled > 0)
        return False

    def _branch(self, key: int) -> tuple[int, bool] | None:
        """Where one of its branches is, and whether that is a jump while the key is off."""
        _, entries = _KEY.unpack(self._read(key, _KEY.size))
        if entries & _LINKED:
            (entries,) = struct.unpack("=Q", self._read((entries & ~3) + 8, 8))
        for at in range(entries & ~3, (entries & ~3) + _MOST * _ENTRY.size, _ENTRY.size):
            code, _, of = _ENTRY.unpack(self._read(at, _ENTRY.size))
            if at + 8 + (of & ~3) != key:
                return None
            if not of & _INIT:
                return at + code, bool(of & _INVERTED)
        return None


def symbols_of(programs: Iterable[Program]) -> frozenset[str]:
    """The symbols by which `key_addresses` finds the static keys of these."""
    return frozenset(_symbol(each) for each in programs if each.attach in USERS)


def key_addresses(programs: Iterable[Program], found: Mapping[str, Collection[int]]) -> Mapping[Program, int]:
    """The static key that attaching each of these changes, as far as that is known. `found`: addresses of symbols."""
    wanted = {each: _symbol(each) for each in programs if each.attach in USERS}
    places = {each: next(iter(found[name])) for each, name in wanted.items() if len(found.get(name, ())) == 1}
    offsets = {each: _TRACEPOINT_KEY if each.attach in TRACEPOINTS else _cgroup_offset() for each in places}
    return {each: place + offsets[each] for each, place in places.items() if place}


def _symbol(program: Program) -> str:
    if program.attach not in TRACEPOINTS:
        return _CGROUP
    name = "sys_enter" if program.attach is AttachType.SYSCALL else program.target.rpartition("/")[2]
    return f"__tracepoint_{name}"


def _cgroup_offset() -> int:
    """One key for each kind of programs since a9ed15dae074, one for all before.

    Few kernels' BTF has variables, so their size does not tell. It has the enum by which kinds are counted since
    6fc88c354f3a; what lies between the two takes the first key for this one.
    """
    return _KEY.size * Btf().numbers("cgroup_bpf_attach_type").get("CGROUP_SYSCTL", 0)
