"""Reading the running kernel's memory by address, for comparisons that no event can tell: see `krie_peek` in C."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from contextlib import suppress

from ..errors import KernelError
from . import bpf
from .maps import Map

_FAILED = struct.Struct("=Q")
_ZERO = bytes(4)
_JUMP = b"\xe9"


class KernelMemory:
    """Reads, and never writes. What is read may change meanwhile: nothing in the kernel is locked."""

    def __init__(self, program: int, answer: Map, run: Callable[[int, tuple[int, ...]], None] = bpf.test_run) -> None:
        """`answer`: the map that the program writes to when `run` runs it."""
        self._program, self._answer, self._run = program, answer, run
        self._most = answer.value_bytes - _FAILED.size

    def read(self, address: int, size: int) -> bytes:
        """So many bytes. Raises `KernelError` where any of them cannot be read, as under lockdown=confidentiality."""
        pieces = []
        for start in range(address, address + size, self._most):
            count = min(self._most, address + size - start)
            self._run(self._program, (start, count))
            raw = self._answer.get(_ZERO) or bytes(self._answer.value_bytes)
            if any(raw[: _FAILED.size]):
                raise KernelError(f"reading kernel memory at {start:#x}", errno.EFAULT)
            pieces.append(raw[_FAILED.size : _FAILED.size + count])
        return b"".join(pieces)

    def is_jump(self, address: int) -> bool:
        """Whether a jump to 32 bits further stands there now; False also where that cannot be read."""
        with suppress(KernelError):
            return self.read(address, 1) == _JUMP
        return False

    def number(self, address: int, size: int = 8) -> int:
        """An unsigned integer. Raises `KernelError`."""
        return int.from_bytes(self.read(address, size), "little")
