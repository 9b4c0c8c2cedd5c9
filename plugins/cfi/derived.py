"""Who may call the locked functions of the running kernel: by the lock file of its build, and by its own code.

The file is there at once. The derivation takes a second of CPU time and some 100 MB, so it is done in a process of its
own (`background.py`), where what this module is run as a program does.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from krie import KernelError, KrieError

from . import lock_file
from .declaration import Declaration, shipped
from .derivation import THUNKS, Code, indirect_calls
from .live import Read, code_of

_NICE = 10


@dataclass(frozen=True, slots=True)
class Callers:
    """Of the locked functions."""

    legal: Mapping[str, list[int]]
    """Return addresses by function, of those that can be locked: direct callers, and behind known calls by pointer."""
    certain: Collection[str]
    """Functions of which all callers are known."""


@dataclass(frozen=True, slots=True)
class Derived(Callers):
    """Out of the running kernel's code."""

    callers: int
    """Places with direct calls."""
    differences: list[str] = field(default_factory=list)
    """What only the code or only the lock file has, as `krie cfi diff` tells it."""
    through: Mapping[str, list[str]] = field(default_factory=dict)
    """By function those that lead to it by a jump, and itself: who calls these has called it."""


def named_by(lock: lock_file.LockFile, declared: Declaration) -> set[str]:
    """Symbols that `filed` needs to know."""
    places = {place.partition("+")[0] for each in lock.functions.values() for place in (*each.callers, *each.open)}
    return places | {caller for each in declared.indirect.values() for caller in each.callers}


def filed(lock: lock_file.LockFile, declared: Declaration, known: Mapping[str, range], read: Read) -> Callers:
    """What the lock file says, for the functions of which it has all that is needed. Raises `KernelError`.

    `known`: where symbols lie. Calls by a pointer are looked for in the running kernel's code, since the kernel
    replaces them when it boots by what the processor needs against Spectre.
    """
    legal: dict[str, list[int]] = {}
    certain = []
    thunks = {each.start for name, each in known.items() if name.startswith(THUNKS)}
    for name, each in lock.functions.items():
        places = {_address(place, known) for place in each.callers}
        if name not in declared.functions or not places or 0 in places:
            continue  # symbols of this name are several: the derivation goes by their code
        places |= {_address(place, known) for place in each.open} - {0}
        indirect = [declared.indirect[taken] for taken in each.taken if taken in declared.indirect]
        for caller in {caller for row in indirect for caller in row.callers if caller in known}:
            there = known[caller]
            places |= indirect_calls(read(there.start, len(there)), there.start, thunks.__contains__)
        legal[name] = sorted(places)
        if len(indirect) == len(each.taken):
            certain.append(name)
    return Callers(legal, certain)


def derive(code: Code, declared: Declaration, lock: lock_file.LockFile | None) -> Derived:
    """What the running kernel's code says, held against the lock file. `lock`: None where this build has none."""
    callers = code.callers(declared.functions, declared.jumps())
    learnt = {name: {code.address(place) for place in each.open} - {0} for name, each in _filed_functions(lock)}
    legal: dict[str, list[int]] = {}
    certain: list[str] = []
    for name, found in callers.items():
        taken = [code.name(each) for each in found.taken]
        known = [declared.indirect[each] for each in taken if each in declared.indirect]
        by_pointer = {place for row in known for caller in row.callers for place in code.indirect_calls(caller)}
        if places := found.returns | by_pointer | learnt.get(name, set()):
            legal[name] = sorted(places)
            if code.has_data and len(known) == len(taken):
                certain.append(name)
    differences = []
    if lock is not None:
        live = lock_file.lock_file_of("", lock.build_id, code, callers)
        # What an administrator added is in no lock file of KRIe's.
        both = lock.functions.keys() & live.functions.keys()
        differences = lock_file.differences(_only(lock.derived(), both), _only(live, both))
    through = {name: sorted(map(code.name, each.through)) for name, each in callers.items()}
    return Derived(legal, certain, sum(len(each.returns) for each in callers.values()), differences, through)


def _address(place: str, known: Mapping[str, range]) -> int:
    """Of `function+0xOFFSET`; 0 where there is none of this name, or several."""
    function, _, offset = place.partition("+")
    return known[function].start + int(offset, 16) if function in known else 0


def _filed_functions(lock: lock_file.LockFile | None) -> Iterable[tuple[str, lock_file.LockedFunction]]:
    return lock.functions.items() if lock is not None else ()


def _only(lock: lock_file.LockFile, names: Collection[str]) -> lock_file.LockFile:
    return lock.model_copy(update={"functions": {each: lock.functions[each] for each in names}})


def main() -> None:
    """Derive from a copy of the kernel's code, as `background.py` asks for it, and print the answer as JSON."""
    os.nice(_NICE)  # it is waited for by nobody
    question: dict[str, Any] = json.load(sys.stdin)
    ranges = [range(start, start + size) for start, size in question["ranges"]]

    def read(address: int, size: int) -> bytes:
        at = 0
        for each in ranges:
            if address in each:
                return os.pread(question["copy"], size, at + address - each.start)
            at += len(each)
        raise KernelError(f"reading the copy of kernel memory at {address:#x}", errno.EFAULT)

    try:
        lock = lock_file.shipped(question["build_id"]) if question["build_id"] else None
        found = derive(code_of(read, ranges), shipped().with_functions(question["functions"]), lock)
        answer = asdict(found)
    except KrieError as error:
        answer = {"problem": str(error)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
