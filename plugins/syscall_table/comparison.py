"""Compares the kernel's memory with what it should hold, and finds what has no legal cause in any of four looks.

The first look reads everything, the others only the pages where something is unexplained. The kernel patches its code
in steps and takes what it patched off its lists before or after that, so that one look sees much that is not an attack.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from krie import KernelError, KernelMemory, Symbols

from .explain import MODULES_RANGE, Code, Lists, target
from .runs import Ranges, runs
from .tables import Tables

_PAGE = 4096
_NEAR = 16
"""Bytes around a difference that its explanation may need, and differences so near to one another are told as one."""
_REACH, _LEAD = 4, (0xE8, 0xE9)
"""Bytes of a call or jump behind its first one, and what that is."""
_WAITS_S = (0.05, 0.25, 1.0)
"""Before each further look. An optimized kprobe that is unregistered is off the list long before its jump is gone."""


class Bytes(Protocol):
    """Bytes, or a private mapping of a file."""

    def __getitem__(self, place: slice, /) -> bytes:
        """The bytes of a slice."""

    def __len__(self) -> int:
        """How many there are."""


@dataclass(slots=True)
class Area:
    """Memory that is compared, and what it should hold."""

    section: str
    start: int
    content: Bytes
    name: str = ""
    """What it is called where the kernel's symbols do not tell."""
    near: bool = False
    """A module's, or BPF's, which may go at any time."""
    tables: Tables | None = None
    """Of a module's code, where its file tells them; else see `Code.near`."""
    locks: Ranges | None = None
    """See `Code.locks`."""
    reference: str = ""
    """A value of `events.REFERENCES` where it is not that of the kernel's own code."""
    traps: set[int] = field(default_factory=set)
    """Bytes that a kprobe had replaced when the reference was taken: what stood there before is not known."""
    learnt: dict[int, int] = field(default_factory=dict)
    """Such bytes, as they were found when their kprobe had gone."""

    def has(self, address: int) -> bool:
        """Whether it lies in here."""
        return self.start <= address < self.start + len(self.content)

    def before(self, address: int, size: int) -> bytes:
        """Of the reference; fewer bytes at its end."""
        offset = address - self.start
        content = self.content[max(0, offset) : max(0, offset + size)]
        if not self.learnt:
            return content
        made = bytearray(content)
        for place in range(max(address, self.start), max(address, self.start) + len(made)):
            if place in self.learnt:
                made[place - max(address, self.start)] = self.learnt[place]
        return bytes(made)


@dataclass(frozen=True, slots=True)
class Wrong:
    """Bytes that differ without a legal cause."""

    section: str
    address: int
    was: bytes
    now: bytes
    reference: str = ""
    """See `Area.reference`."""


class _View:
    """What an area held at one moment: where it differs, and the pages with differences."""

    def __init__(self, area: Area) -> None:
        self.area = area
        self.runs: list[range] = []
        self._pages: dict[int, bytes] = {}
        """By the address of each's first byte."""

    def take(self, address: int, now: bytes) -> None:
        """A piece that was read."""
        before = self.area.before(address, len(now))
        if before == now:
            return
        position = 0
        while position < len(now):
            size = min(_PAGE - (address + position) % _PAGE, len(now) - position)
            page = now[position : position + size]
            if page != before[position : position + size]:
                self._pages[address + position] = page
            position += size
        for each in runs(before, now):
            run = range(address + each.start, address + each.stop)
            if self.runs and self.runs[-1].stop == run.start:
                run = range(self.runs.pop().start, run.stop)
            self.runs.append(run)

    def now(self, address: int, size: int) -> bytes:
        """As the reference, but for what differs."""
        first = max(address, self.area.start)
        made = bytearray(self.area.before(first, address + size - first))
        position = 0
        while position < len(made):
            page = max((first + position) // _PAGE * _PAGE, self.area.start)
            inside = first + position - page
            content = self._pages.get(page)
            count = min(_PAGE - (first + position) % _PAGE, len(made) - position)
            if content is not None:
                count = min(count, len(content) - inside)
                made[position : position + count] = content[inside : inside + count]
            position += max(count, 1)
        return bytes(made)


class CodeComparison:
    """The comparison of all areas of code with memory."""

    def __init__(
        self,
        memory: KernelMemory,
        areas: list[Area],
        kernel: Code,
        lists: Callable[[], Lists],
        brief_lists: Callable[[tuple[tuple[int, str], ...]], Lists],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`kernel`: what is known of the kernel, of which only `before`, `now` and `near` differ by area.

        `lists` reads all that the kernel lists; `brief_lists` the same but for generated code, which takes long and is
        as before.
        """
        self.areas = areas
        self.compared = 0
        """Bytes, in all looks so far."""
        self._memory, self._kernel, self._sleep = memory, kernel, sleep
        self._lists, self._brief = lists, brief_lists
        self._generated: tuple[tuple[int, str], ...] = ()

    def renew(self, symbols: Symbols) -> None:
        """Modules came or went."""
        self._kernel = replace(self._kernel, symbols=symbols)

    def look(self) -> list[Wrong]:
        """What has no legal cause, in order. Raises `KernelError`."""
        views = []
        for area in self.areas:
            view = _View(area)
            try:
                for offset, piece in self._memory.pieces(area.start, len(area.content)):
                    self.compared += len(piece)
                    view.take(area.start + offset, piece)
            except KernelError:
                if not area.near:
                    raise
                continue  # a module that is being unloaded
            if view.runs:
                views.append(view)
        if not views:
            return []
        lists = self._brief(self._generated)
        wrong = self._unexplained(views, (lists,))
        for wait in _WAITS_S:
            if not wrong:
                return []
            self._sleep(wait)
            before, views = lists, list(self._again(wrong))
            lists = self._lists() if any(map(self._may_lead_out, wrong.values())) else self._brief(self._generated)
            self._generated = lists.generated
            found = self._unexplained(views, (before, lists))
            wrong = {key: each for key, each in found.items() if wrong.get(key) == each}
        wrong = {key: each for key, each in wrong.items() if not self._learn(each)}
        return list(_joined(wrong.values(), self.areas))

    def _may_lead_out(self, wrong: Wrong) -> bool:
        """Whether a jump or call of these bytes may lead to generated code: only then all symbols need be read."""
        area = next(each for each in self.areas if wrong.address in range(each.start, each.start + len(each.content)))
        first = max(area.start, wrong.address - _REACH)
        code = area.before(first, wrong.address - first) + wrong.now
        code += area.before(wrong.address + len(wrong.now), _REACH)
        return any(
            code[place] in _LEAD and target(code[place : place + 5], first + place) in MODULES_RANGE
            for place in range(len(code) - _REACH)
        )

    def _again(self, wrong: dict[tuple[int, int], Wrong]) -> Iterator[_View]:
        for area in self.areas:
            pages = {
                page
                for each in wrong.values()
                if area.start <= each.address < area.start + len(area.content)
                for page in range((each.address - _NEAR) // _PAGE, (each.address + len(each.now) + _NEAR) // _PAGE + 1)
            }
            view = _View(area)
            for page in sorted(pages):
                first = max(page * _PAGE, area.start)
                size = min((page + 1) * _PAGE, area.start + len(area.content)) - first
                with suppress(KernelError):  # a module that is being unloaded
                    if size > 0:
                        view.take(first, self._memory.read(first, size))
            if view.runs:
                yield view

    def _unexplained(self, views: Iterable[_View], lists: tuple[Lists, ...]) -> dict[tuple[int, int], Wrong]:
        found = {}
        for view in views:
            area = view.area
            code = self._code_of(area, view.now, lists)
            for run in view.runs:
                for part in code.unexplained(run):
                    size = len(part)
                    was, now = area.before(part.start, size), view.now(part.start, size)
                    wrong = Wrong(area.section, part.start, was, now, area.reference)
                    found[part.start, size] = wrong
        return found

    def _code_of(self, area: Area, now: Callable[[int, int], bytes], lists: tuple[Lists, ...]) -> Code:
        """What may differ there."""
        code = replace(self._kernel, before=area.before, now=now)
        if area.section == "rodata":
            return replace(code, lists=(), tables=Tables())
        if area.tables is not None:
            locks = area.locks or Ranges(())
            return replace(code, lists=lists, tables=area.tables, locks=locks.end, modules=True)
        if area.near:
            return replace(code, lists=lists, tables=Tables(), near=range(area.start, area.start + len(area.content)))
        return replace(code, lists=lists)

    def _learn(self, wrong: Wrong) -> bool:
        """Whether a kprobe stood there when the reference was taken; then the reference is what came to light."""
        places = range(wrong.address, wrong.address + len(wrong.now))
        for area in self.areas:
            if wrong.address in range(area.start, area.start + len(area.content)) and area.traps.issuperset(places):
                area.traps.difference_update(places)
                area.learnt.update(zip(places, wrong.now, strict=True))
                return True
        return False


def _joined(wrong: Collection[Wrong], areas: list[Area]) -> Iterator[Wrong]:
    """With those that are so near to each other that one act made them as one."""
    last: Wrong | None = None
    for each in sorted(wrong, key=lambda each: each.address):
        if last is not None and last.section == each.section and each.address - last.address - len(last.now) < _NEAR:
            area = next(area for area in areas if area.start <= each.address < area.start + len(area.content))
            between = area.before(last.address + len(last.now), each.address - last.address - len(last.now))
            last = replace(last, was=last.was + between + each.was, now=last.now + between + each.now)
            continue
        if last is not None:
            yield last
        last = each
    if last is not None:
        yield last
