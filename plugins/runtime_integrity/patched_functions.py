"""Functions that a module has patched with ftrace.

No probe can see this happen: the kernel lets nothing be attached to ftrace's own functions. What it has patched it
lists in tracefs.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

_log = logging.getLogger("krie")
_FILES = tuple(Path(folder, "enabled_functions") for folder in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"))
_HANDLER = re.compile(r"[\w.]+\+0x[0-9a-f]+/0x[0-9a-f]+ \[(\w+)\]")
_NO_MODULES = frozenset({"bpf", "__builtin__ftrace", "__builtin__kprobes"})
"""What the kernel names like modules: code that it generates."""


def patched(text: str) -> frozenset[tuple[str, str]]:
    """Pairs of function and module, in what the kernel lists: a function a line, then who handles it.

    Of a function with several handlers the kernel names none.
    """
    found = set()
    for line in text.splitlines():
        function, _, rest = line.partition(" ")
        found |= {(function, module) for module in _HANDLER.findall(rest) if module not in _NO_MODULES}
    return frozenset(found)


class PatchedFunctions:
    """Tells each pair once, for as long as it stays."""

    def __init__(self) -> None:
        """Nothing is known yet: what was there before the agent is told too."""
        self._known: frozenset[tuple[str, str]] = frozenset()
        self._unreadable = False

    def look(self) -> list[tuple[str, str]]:
        """New pairs on this machine. What cannot be read, as under lockdown, is logged once."""
        file = next((each for each in _FILES if each.exists()), _FILES[0])
        try:
            text = file.read_text()
        except OSError as error:
            if not self._unreadable:
                _log.warning("functions that modules patch by ftrace are not looked for: %s", error)
            self._unreadable = True
            return []
        return self.new(text)

    def new(self, text: str) -> list[tuple[str, str]]:
        """Those that the last look did not find."""
        found = patched(text)
        new = sorted(found - self._known)
        self._known = found
        return new
