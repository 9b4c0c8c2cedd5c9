"""What loaded modules are compared with: their files, where they lie below /lib/modules and have the same build id."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from krie import KernelMemory, KrieError, module_file, module_files

from .module_image import ModuleImage, image_of
from .modules import Module, own_folder, section_starts

_FOLDER = "/lib/modules"
_EXPORTED = re.compile(rb"^([0-9a-f]+) [A-Z] ([^\t\n]+)", re.MULTILINE)
"""What a module may ask for: the kernel's symbols that are not one file's own, and those that modules export."""


@dataclass(frozen=True, slots=True)
class ModuleImages:
    """Of the modules at one moment."""

    made: Mapping[Module, ModuleImage] = field(default_factory=dict)
    without: Mapping[Module, str] = field(default_factory=dict)
    """Why there is none."""


def folder() -> Path:
    """Where the files of the running kernel's modules lie."""
    return Path(_FOLDER, os.uname().release)


def images_of(
    modules: Collection[Module],
    memory: KernelMemory,
    kallsyms: bytes,
    functions: Mapping[str, Sequence[tuple[int, str]]],
) -> ModuleImages:
    """Of each that is loaded. Takes a tenth of a second for a large one, and as long for all symbols.

    `functions`: of each module those that the kernel lists, address and name.
    """
    made: dict[Module, ModuleImage] = {}
    without: dict[Module, str] = {}
    if not modules:
        return ModuleImages()
    try:
        files = module_files(folder())
    except KrieError as error:
        return ModuleImages({}, dict.fromkeys(modules, str(error)))
    symbols = _symbols(kallsyms)
    for each in modules:
        try:
            file = module_file(each.name, files, own_folder(each))
            starts = section_starts(each)
            if not starts:
                raise ValueError("the kernel does not tell where its sections lie (kernel.kptr_restrict)")
            image = image_of(file, starts, lambda name: symbols.get(name.encode(), ()), memory.read)
            inside = range(each.start, each.start + each.size)
            if not image.has(begin for begin, _ in functions.get(each.name, ()) if begin in inside):
                raise ValueError("the kernel's symbols and sections tell different places of it")
            made[each] = image
        except (KrieError, OSError, ValueError) as error:  # as where it is being unloaded
            without[each] = str(error)
    return ModuleImages(made, without)


def _symbols(kallsyms: bytes) -> Mapping[bytes, list[int]]:
    found: dict[bytes, list[int]] = {}
    for each in _EXPORTED.finditer(kallsyms):
        found.setdefault(each[2], []).append(int(each[1], 16))
    return found
