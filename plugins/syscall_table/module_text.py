"""The code and read-only data of loaded modules as a whole, compared byte by byte with their files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from krie import Check, Difference, KernelError, KernelMemory, Symbols, kallsyms_text

from .areas import module_functions
from .explain import Code, Lists, read_lists
from .kallsyms import KALLSYMS, addresses_in
from .module_image import ModuleImage
from .module_reference import ModuleImages, folder, images_of
from .modules import Module, loaded
from .reference import Part
from .text import code_in, compare

_NAME = "modules"
_MOST = 64
"""Differences that are told one by one."""


def check(memory: KernelMemory, progress: Callable[[str], None]) -> Iterable[Check]:
    """One full look at those that are loaded. Raises `KernelError`."""
    modules = set(loaded())
    if not modules:
        return
    progress("reading the files of modules ...")
    kallsyms = kallsyms_text(KALLSYMS)
    images = images_of(modules, memory, kallsyms, module_functions(kallsyms))
    progress("comparing modules ...")
    yield _Look(memory, kallsyms).check(images)


class _Look:
    """At all of them."""

    def __init__(self, memory: KernelMemory, kallsyms: bytes) -> None:
        address = addresses_in(kallsyms)
        self._memory, self._symbols = memory, Symbols()
        self._text = range(address("_stext"), address("_etext"))
        self._compared, self._causes, self._limits = 0, Counter[str](), dict[str, None]()
        self._lists = read_lists(kallsyms)
        self._told: list[Difference] = []
        self._others = 0

    def check(self, images: ModuleImages) -> Check:
        """What was found."""
        for module, image in images.made.items():
            self._compare(module, image)
        limits = [*self._limits, *(f"module {each.name}: {why}" for each, why in images.without.items())]
        return Check(
            _NAME,
            self._compared,
            f"files below {folder()}" if images.made else "",
            dict(self._causes),
            tuple(self._told[:_MOST]),
            self._others + len(self._told[_MOST:]),
            tuple(sorted(limits)),
        )

    def _compare(self, module: Module, image: ModuleImage) -> None:
        for part in image.parts:
            try:
                found = compare(self._memory, part, partial(self._code, part, image), self._lists)
            except KernelError:
                if module in set(loaded()):
                    raise
                return  # it was unloaded meanwhile
            if found.wrong and module not in set(loaded()):
                return
            told = found.differences(part, self._symbols)
            self._told += told
            self._others += len(found.wrong) - len(told)
            self._compared += len(part.content)
            self._causes += found.causes
            self._limits |= dict.fromkeys(found.without())

    def _code(self, part: Part, image: ModuleImage, now: bytes, lists: tuple[Lists, ...]) -> Code:
        code = replace(code_in(part, now, self._symbols), text=self._text, locks=image.locks.end, modules=True)
        return replace(code, tables=image.tables, lists=lists) if part.section == "module" else code
