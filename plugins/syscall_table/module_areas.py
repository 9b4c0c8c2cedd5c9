"""What is compared of a loaded module: its code and read-only data, as its file has them, or as they are when it is
first seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from krie import KernelError, KernelMemory

from .areas import trapped, without_tracers
from .comparison import Area
from .explain import Code, Lists
from .module_image import ModuleImage
from .modules import Module, read_only_data
from .runs import Ranges

FILE, LOAD = "file", "load"
"""Of `events.REFERENCES`."""


def code_area(
    memory: KernelMemory,
    extent: range,
    functions: list[tuple[int, str]],
    code: Code,
    image: ModuleImage | None,
) -> Area | None:
    """Its code; None where it has gone. `code`: what is known of the kernel's, with the lists of this moment."""
    try:
        content = bytearray(memory.read(extent.start, len(extent)))
    except KernelError:
        return None
    (lists,) = code.lists
    begins = (begin for begin, name in functions if begin in extent and _is_handled(name, lists))
    without_tracers(content, extent.start, begins, code)
    if image is None:
        traps = trapped(content, extent.start, lists, Ranges([(extent.start, len(extent))]))
        return Area("module", extent.start, bytes(content), near=True, reference=LOAD, traps=traps)
    image.over(content, extent.start)
    area = Area("module", extent.start, bytes(content), near=True, reference=FILE)
    area.tables, area.locks = image.tables, image.locks
    area.traps = trapped(content, extent.start, lists, image.taken)
    return area


def data_areas(memory: KernelMemory, module: Module, image: ModuleImage | None) -> Iterator[Area]:
    """Its read-only data, where tables of its functions are, such as those of a file system."""
    data = read_only_data(module)
    with suppress(KernelError):
        if data:
            content = bytearray(memory.read(data.start, len(data)))
            if image is not None:
                image.over(content, data.start)
            reference = LOAD if image is None else FILE
            yield Area("rodata", data.start, bytes(content), module.name, near=True, reference=reference)


def _is_handled(function: str, lists: Lists) -> bool:
    return lists.handled is None or function in lists.handled
