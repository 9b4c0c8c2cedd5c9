"""The kernel's modules as it lists them. It takes any name: with blanks, line breaks, bytes that are not UTF-8.

So what follows a name tells where it ends, and never of what it consists; and of a name that looks like the end of a
record, /sys/module tells that it is one.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from ..events.wire import text_of
from ..kernel_files import AnyFile, KernelFile

PROC_MODULES = KernelFile("/proc/modules")
_FOLDER = KernelFile("/sys/module")
"""A folder for each module, and more; with an exclamation mark in the place of each slash."""
_BROKEN = re.compile(rb"[ \t\n]")
_RECORD = re.compile(rb"(.*?) (Live|Loading|Unloading) (0x[0-9a-f]+)(?: \([^()\n]*\))?(?:\n|\Z)", re.DOTALL)
_BEFORE_STATE = re.compile(rb"(.+) (\d+) (?:\d+|-) \S+", re.DOTALL)
_WITH_ODD_USERS = re.compile(rb"(.+?) (\d+) \d+ .+,", re.DOTALL)
"""The same where a blank is in the name of a module that uses this one."""
_KPROBE = re.compile(r"[0-9a-f]+ +[a-z] +\S")
_UNPLAIN = re.compile(rb"[^!-Z^-~\\]")


@dataclass(frozen=True, slots=True)
class LoadedModule:
    """One that /proc/modules has."""

    raw: bytes
    """Its name, as the kernel has it."""
    size: int
    state: str
    """`Live`, `Loading` or `Unloading`."""
    address: int
    """0 where kernel.kptr_restrict hides it."""

    @property
    def name(self) -> str:
        """As events have it."""
        return text_of(self.raw)

    @property
    def tag(self) -> str:
        """As `krie.kallsyms_text` and `Symbol.module` have it."""
        return tag_of(self.raw).decode()


def loaded_modules(file: AnyFile = PROC_MODULES, folder: AnyFile = _FOLDER) -> list[LoadedModule]:
    """All of them, also those on their way in or out; none where the kernel has no modules. Raises `OSError`.

    `folder`: has their names apart from each other.
    """
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        return []
    text, names = _without_broken_names(text, folder)
    found = []
    for record in _RECORD.finditer(text):
        before = _BEFORE_STATE.fullmatch(record[1]) or _WITH_ODD_USERS.fullmatch(record[1])
        if before is not None:
            name = names.get(before[1], before[1])
            found.append(LoadedModule(name, int(before[2]), record[2].decode(), int(record[3], 16)))
    return found


def _without_broken_names(text: bytes, folder: AnyFile) -> tuple[bytes, dict[bytes, bytes]]:
    """The list with other words for names with blanks or line breaks, wherever a name can be, of a module or of one
    that uses it; and these names by their words."""
    try:
        listed = [os.fsencode(each.name) for each in folder.iterdir()]
    except OSError:
        return text, {}
    names: dict[bytes, bytes] = {}

    def word_of(found: re.Match[bytes]) -> bytes:
        word = b"\x00%d\x00" % len(names)  # no name has a NUL
        names[word] = found[0]
        return word

    for name in sorted(filter(_BROKEN.search, listed), key=len, reverse=True):
        own = re.escape(name).replace(b"!", b"[!/]")
        text = re.sub(rb"(?:(?<![^\n])%s(?= \d+ (?:\d+|-) )|(?<=[ ,])%s(?=,))" % (own, own), word_of, text)
    return text, names


def tag_of(name: bytes) -> bytes:
    """A module's name in visible ASCII without blanks and brackets: that of any usual module is as it is."""
    shown = text_of(name).encode("utf-8", "backslashreplace")
    return _UNPLAIN.sub(lambda found: b"\\x%02x" % found[0][0], shown)


def kernel_lines(file: AnyFile) -> list[str]:
    """Lines of a list of the kernel's that has names of modules in it, which break some lines. Raises `OSError`."""
    return file.read_bytes().decode(errors="backslashreplace").split("\n")


def kprobe_lines(file: AnyFile) -> list[str]:
    """Those of the kernel's list of kprobes: address, kind, place, and what there is to say. Raises `OSError`."""
    return [each for each in kernel_lines(file) if _KPROBE.match(each)]
