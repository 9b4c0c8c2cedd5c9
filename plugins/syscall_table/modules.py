"""Modules of the kernel that are loaded, and where their code lies."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from krie import KernelFile, loaded_modules

_MODULES, _FOLDER = KernelFile("/proc/modules"), KernelFile("/sys/module")
_PAGE = 4096
_DATA = ".rodata"


@dataclass(frozen=True, slots=True)
class Module:
    """One of them. Another load of it makes another one."""

    name: str
    """As the kernel's symbols have it."""
    start: int
    size: int
    identity: int
    """Of its folder below /sys/module, which each load makes again."""
    folder: str = field(default="", compare=False)
    """That folder's name, in which a slash is an exclamation mark; empty: the same."""


def loaded() -> Iterator[Module]:
    """Those that are not on their way in or out."""
    for each in loaded_modules(_MODULES):
        folder = os.fsdecode(each.raw.replace(b"/", b"!"))
        try:
            identity = (_FOLDER / folder).stat().st_ino
        except OSError:
            continue
        if each.state == "Live":
            yield Module(each.tag, each.address, each.size, identity, folder)


def ranges() -> list[range]:
    """Addresses of all of them, also of those that are on their way."""
    return [extent for _, extent in named_ranges()]


def named_ranges() -> list[tuple[str, range]]:
    """The same with their names, as the kernel's symbols have them."""
    listed = loaded_modules(_MODULES)
    return [(each.tag, range(each.address, each.address + each.size)) for each in listed]


def extents_of(modules: Iterable[Module], functions: dict[str, list[tuple[int, str]]]) -> dict[Module, range]:
    """Where each one's code lies, by its functions: whole pages, since nothing but code is in them."""
    found = {}
    for each in modules:
        inside = range(each.start, each.start + each.size)
        begins = [begin for begin, _ in functions.get(each.name, ()) if begin in inside]
        if begins:
            found[each] = range(min(begins) // _PAGE * _PAGE, max(begins) // _PAGE * _PAGE + _PAGE)
    return found


def own_folder(module: Module) -> KernelFile:
    """What the kernel tells of it below /sys/module."""
    return _FOLDER / (module.folder or module.name)


def section_starts(module: Module) -> dict[str, int]:
    """Where its sections lie; none where kernel.kptr_restrict hides that."""
    starts = {}
    with suppress(OSError):
        for each in (own_folder(module) / "sections").iterdir():
            with suppress(OSError, ValueError):
                starts[each.name] = int(each.read_text(), 16)
    return {name: start for name, start in starts.items() if start}


def read_only_data(module: Module) -> range:
    """Where its variables lie that nothing writes (.rodata), up to its next section; empty where it has none."""
    starts = section_starts(module)
    start = starts.get(_DATA, 0)
    end = min((each for each in starts.values() if start < each <= start + module.size), default=0)
    return range(start, end) if start and end else range(0)
