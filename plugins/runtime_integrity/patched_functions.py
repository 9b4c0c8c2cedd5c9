"""Functions that a module has patched with ftrace.

No probe can see this happen: the kernel lets nothing be attached to ftrace's own functions. What it has patched it
lists in tracefs.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from itertools import groupby

from krie import KernelFile, kernel_lines

_log = logging.getLogger("krie")
_FILE = KernelFile("/sys/kernel/tracing/enabled_functions")
_HANDLER = re.compile(r"(?:\(|->|ent:|ret:|\{(?=[^(}]*\}))\S+?\+0x[0-9a-f]+/0x[0-9a-f]+ \[(.+?)(?:\]|$)")
"""What runs, in `tramp: TRAMPOLINE (HANDLER)`, `->HANDLER`, `direct-->HANDLER`, `{ent:HANDLER ret:HANDLER}` and
`{TRAMPOLINE (HANDLER)}`. A trampoline says nothing: the kernel may name it after a module that was there before. A
module may have any name; of one with a bracket or a line break in it this is the begin.
"""
_NO_MODULES = frozenset({"bpf", "__builtin__ftrace", "__builtin__kprobes"})
"""What the kernel names like modules: code that it generates."""
_TOLD_EACH = 64
"""Functions of one module that a look tells one by one. A module that traces patches all of them, some ten thousand."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A function that a module has patched."""

    function: str
    module: str
    others: int = 0
    """Further ones of the same module that are not told."""


def patched(text: str) -> frozenset[Patch]:
    """What the kernel lists: a function a line, then who handles it, which may go on in lines that begin with a tab.

    Of a function with several handlers the kernel names none.
    """
    found = set()
    function = ""
    for line in text.split("\n"):
        if not line.startswith("\t"):
            function = line.partition(" ")[0]
        found |= {Patch(function, module) for module in _HANDLER.findall(line) if module not in _NO_MODULES}
    return frozenset(found)


class PatchedFunctions:
    """Tells each patch once, for as long as it stays."""

    def __init__(self) -> None:
        """Nothing is known yet: what was there before the agent is told too."""
        self._known: frozenset[Patch] = frozenset()
        self._unreadable = False

    def look(self) -> list[Patch]:
        """New ones on this machine. What cannot be read, as under lockdown, is logged once."""
        try:
            text = "\n".join(kernel_lines(_FILE))
        except OSError as error:
            if not self._unreadable:
                _log.warning("functions that modules patch by ftrace are not looked for: %s", error)
            self._unreadable = True
            return []
        return self.new(text)

    def new(self, text: str) -> list[Patch]:
        """Those that the last look did not find; of a module with many the first ones, of which the last counts on."""
        found = patched(text)
        new = sorted(found - self._known, key=lambda each: (each.module, each.function))
        self._known = found
        told: list[Patch] = []
        for _, of_module in groupby(new, key=lambda each: each.module):
            each = list(of_module)
            told += each[: _TOLD_EACH - 1]
            if len(each) >= _TOLD_EACH:
                told.append(replace(each[_TOLD_EACH - 1], others=len(each) - _TOLD_EACH))
        return told
