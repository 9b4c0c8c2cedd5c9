"""A test module: what it does to the kernel lasts until the device that asked for it is closed.

The module has one device, /dev/NAME, that takes one command a write().
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KALLSYMS = Path("/proc/kallsyms")
_DIGITS = 16
_own_symbols: dict[str, int] = {}


class TestModule:
    """A module's file, loaded or not. Needs root."""

    __test__ = False  # not a class of tests, whatever pytest makes of its name

    def __init__(self, file: Path) -> None:
        """`file`: the .ko."""
        self.file, self.name = file, file.stem

    def load(self, *parameters: str) -> None:
        """`parameters`: as `name=value`. Raises `subprocess.CalledProcessError` where the kernel or it refuses."""
        _run("insmod", str(self.file), *parameters)

    def unload(self) -> None:
        """Raises `subprocess.CalledProcessError` where it is not loaded, or in use."""
        _run("rmmod", self.name)

    @contextmanager
    def effect(self, *words: object) -> Iterator[None]:
        """Give the module a command, and undo its effect at the end. Integers are written as it reads them.

        Raises `OSError` with the module's error.
        """
        command = " ".join(f"{each:x}" if isinstance(each, int) else str(each) for each in words)
        device = os.open(f"/dev/{self.name}", os.O_WRONLY)
        try:
            os.write(device, command.encode())
            yield
        finally:
            os.close(device)


def address_of(symbol: str) -> int:
    """Where a symbol of the kernel lies. Raises `KeyError` where it has none of this name, or several.

    The kernel's own stay where they are: each is looked for once, since to print all takes a guest seconds.
    """
    if symbol in _own_symbols:
        return _own_symbols[symbol]
    text = KALLSYMS.read_bytes()
    found = {}
    for match in re.finditer(rb" %s(\t.*)?\n" % re.escape(symbol.encode()), text):
        begin = text.rfind(b"\n", 0, match.start()) + 1
        found[int(text[begin : begin + _DIGITS], 16)] = match[1]
    if len(found) != 1:
        raise KeyError(symbol)
    ((address, module),) = found.items()
    if address and module is None:  # 0 is where it is hidden
        _own_symbols[symbol] = address
    return address


def _run(program: str, *arguments: str) -> None:
    path = "/usr/sbin:/sbin:/usr/bin:/bin"
    subprocess.run([program, *arguments], check=True, env={"PATH": path}, capture_output=True, text=True)
