"""The kernel's code and read-only data as a whole, compared byte by byte with its boot image."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from krie import Check, Difference, KernelMemory, Symbols, kallsyms_text

from .explain import Code, Lists, read_lists, target
from .kallsyms import KALLSYMS, addresses_in
from .reference import NoReferenceError, Part, Reference, find, prepare
from .runs import runs
from .tables import Tables, read_tables

_LOOKS, _BETWEEN_S = 3, 0.05
"""A place must differ in so many looks: the kernel itself patches code in steps."""
_MOST = 64
"""Differences that are told one by one."""
_ELSE = (
    "code of BPF, which no file has; variables; what the kernel patches only while it boots (alternatives, retpolines "
    "and the like), which the image does not tell"
)


def check(memory: KernelMemory, progress: Callable[[str], None]) -> Iterable[Check]:
    """One full look. Raises `KernelError`."""
    kallsyms = kallsyms_text(KALLSYMS)
    address = addresses_in(kallsyms)
    try:
        progress("unpacking the boot image ...")
        place, image = find(os.uname().release)
        progress("relocating the boot image ...")
        reference = prepare(place, image, address)
    except NoReferenceError as error:
        yield Check("text", not_looked_at=(f"code and read-only data: {error}", _ELSE), needed=True)
        return
    progress("comparing ...")
    symbols, tables = Symbols(), read_tables(memory, address, kallsyms)
    limits = [_ELSE]
    if not tables.jump_labels:
        limits.append("jump labels: this kernel does not tell where they are, so each that is on is told as different")
    wanted = {each.section for each in reference.parts}
    if "rodata" not in wanted:
        limits.append("read-only data: this kernel does not tell where it is")
    for part in reference.parts:
        yield _compared(memory, reference, part, symbols, tables, tuple(limits) if part.section == "text" else ())


def _compared(
    memory: KernelMemory, reference: Reference, part: Part, symbols: Symbols, tables: Tables, limits: tuple[str, ...]
) -> Check:
    def code_of(content: bytes, lists: tuple[Lists, ...]) -> Code:
        is_text = part.section == "text"
        code = code_in(part, content, symbols)
        code = replace(code, boot=reference.boot.end)
        return replace(code, tables=tables, lists=lists) if is_text else code

    found = compare(memory, part, code_of, read_lists(kallsyms_text(KALLSYMS)))
    told = found.differences(part, symbols)
    return Check(
        part.section,
        len(part.content),
        f"image {reference.image}",
        dict(found.causes),
        told,
        len(found.wrong) - len(told),
        limits + found.without(),
    )


@dataclass(frozen=True, slots=True)
class Compared:
    """What one part of memory holds."""

    causes: Counter[str]
    """Places that differ legally, by why."""
    wrong: Mapping[range, bytes]
    """What nothing explains, and stands there."""
    lists: Lists

    def differences(self, part: Part, symbols: Symbols) -> tuple[Difference, ...]:
        """Some of what nothing explains."""
        return tuple(_difference(run, part, now, symbols) for run, now in list(self.wrong.items())[:_MOST])

    def without(self) -> tuple[str, ...]:
        """What could not be looked at."""
        without: tuple[str, ...] = ()
        if self.lists.kprobes is None:
            without += ("the list of kprobes (debugfs), so a breakpoint anywhere passes for one of theirs",)
        if self.lists.handled is None:
            without += ("the list of functions that ftrace handles (tracefs), so each may be one of them",)
        return without


def compare(
    memory: KernelMemory, part: Part, code_of: Callable[[bytes, tuple[Lists, ...]], Code], lists: Lists
) -> Compared:
    """What several looks agree on: the kernel patches code in steps. Raises `KernelError`.

    `lists`: as they were before; those of later are read where something differs.
    """
    wrong: dict[range, bytes] = {}
    causes: Counter[str] = Counter()
    for turn in range(_LOOKS):
        if turn:
            time.sleep(_BETWEEN_S)
        content, before = memory.read(part.start, len(part.content)), lists
        if turn:
            lists = read_lists(kallsyms_text(KALLSYMS))
        causes, found = _look(code_of(content, (before, lists)), part, content)
        wrong = found if not turn else {run: now for run, now in found.items() if wrong.get(run) == now}
        if not wrong:
            break
    return Compared(causes, wrong, lists)


def code_in(part: Part, content: bytes, symbols: Symbols) -> Code:
    """The code of a part, of which nothing may differ."""
    start = part.start
    return Code(
        range(start, start + len(content)),
        lambda address, size: part.content[max(0, address - start) : address - start + size],
        lambda address, size: content[max(0, address - start) : address - start + size],
        symbols,
        Tables(),
        (),
    )


def _look(code: Code, part: Part, content: bytes) -> tuple[Counter[str], dict[range, bytes]]:
    causes: Counter[str] = Counter()
    wrong: dict[range, bytes] = {}
    for run in runs(part.content, content):
        here = range(part.start + run.start, part.start + run.stop)
        cause, end = code.cause(here.start)
        if end >= here.stop:
            causes[cause] += 1
            continue
        for each in code.unexplained(here):
            wrong[each] = content[each.start - part.start : each.stop - part.start]
    return causes, wrong


def _difference(run: range, part: Part, now: bytes, symbols: Symbols) -> Difference:
    found = symbols.find(run.start)
    was = part.content[run.start - part.start : run.stop - part.start]
    leads = ""
    if len(now) >= 5 and now[0] in (0xE8, 0xE9):
        to = target(now, run.start)
        leads = str(symbols.find(to) or f"{to:#x}")
    return Difference(run.start, str(found or f"{run.start:#x}"), was[:16].hex(), now[:16].hex(), leads)
