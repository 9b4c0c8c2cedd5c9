"""The kernel's code and read-only data as a whole, compared byte by byte with its boot image."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable

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
    "code of modules and of BPF, which no boot image has; variables; what the kernel patches only while it boots "
    "(alternatives, retpolines and the like), which the image does not tell"
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
    wrong: dict[range, bytes] = {}
    causes: Counter[str] = Counter()
    lists = read_lists(kallsyms_text(KALLSYMS))
    for turn in range(_LOOKS):
        if turn:
            if not wrong:
                break
            time.sleep(_BETWEEN_S)
        content = memory.read(part.start, len(part.content))
        before, lists = lists, read_lists(kallsyms_text(KALLSYMS))
        code = _code(part, content, symbols, tables, (before, lists), reference)
        causes, found = _look(code, part, content)
        wrong = found if not turn else {run: now for run, now in found.items() if wrong.get(run) == now}
    told = [_difference(run, part, now, symbols) for run, now in list(wrong.items())[:_MOST]]
    if lists.kprobes is None:
        limits += ("the list of kprobes (debugfs), so a breakpoint anywhere passes for one of theirs",)
    if lists.handled is None:
        limits += ("the list of functions that ftrace handles (tracefs), so each may be one of them",)
    return Check(
        part.section,
        len(part.content),
        f"image {reference.image}",
        dict(causes),
        tuple(told),
        len(wrong) - len(told),
        limits,
    )


def _code(
    part: Part,
    content: bytes,
    symbols: Symbols,
    tables: Tables,
    lists: tuple[Lists, ...],
    reference: Reference,
) -> Code:
    start = part.start
    return Code(
        range(start, start + len(content)),
        lambda address, size: part.content[max(0, address - start) : address - start + size],
        lambda address, size: content[max(0, address - start) : address - start + size],
        symbols,
        tables if part.section == "text" else Tables(),
        lists if part.section == "text" else (),
        reference.boot.end,
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
