"""A process that is stopped where a test wants it: at the end of a system call, by ptrace(2), never by chance."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Callable

from krie.libc import system_call

_SYS_PTRACE = 101  # x86-64
_SEIZE, _INTERRUPT, _SYSCALL, _DETACH, _GET_SYSCALL_INFO = 0x4206, 0x4207, 24, 17, 0x420E
_O_TRACESYSGOOD = 1
_OF_A_SYSTEM_CALL = signal.SIGTRAP | 0x80
_WALL = 0x40000000
_INFO = struct.Struct("=B3xIQQQ")
"""struct ptrace_syscall_info, with a system call's number where it begins."""
_ENTERED, _LEFT = 1, 2


class Stepped:
    """One thread of a process, stopped. All that is asked of it is asked by the thread that made this."""

    def __init__(self, tgid: int) -> None:
        """Stop the first thread, wherever it is."""
        self.tgid = tgid
        self._ask(_SEIZE, _O_TRACESYSGOOD)
        self._ask(_INTERRUPT)
        self._number = -1
        self._stops()

    def until(self, number: int, done: Callable[[], object]) -> None:
        """Let it go on, until it has made this system call and `done` says yes. Raises `AssertionError` at its end."""
        while not (self._leaves(number) and done()):
            pass

    def goes_on(self) -> None:
        """As if it had never been stopped."""
        self._ask(_DETACH)

    def is_killed(self) -> None:
        """Where it is. Its parent hears of it once its tracer did."""
        os.kill(self.tgid, signal.SIGKILL)
        os.waitpid(self.tgid, _WALL)

    def _leaves(self, number: int, signalled: int = 0) -> bool:
        """One step; returns whether it was this system call's end."""
        self._ask(_SYSCALL, signalled)
        if (stopped := self._stops()) != _OF_A_SYSTEM_CALL:
            return self._leaves(number, stopped)
        info = ctypes.create_string_buffer(_INFO.size)
        self._ask(_GET_SYSCALL_INFO, info, _INFO.size)
        step, _, _, _, made = _INFO.unpack(info.raw)
        self._number = made if step == _ENTERED else self._number
        return bool(step == _LEFT and self._number == number)

    def _stops(self) -> int:
        """Wait for it; returns the signal that it would get."""
        _, status = os.waitpid(self.tgid, _WALL)
        assert os.WIFSTOPPED(status), f"ended with {os.waitstatus_to_exitcode(status)}"
        return 0 if status >> 16 else os.WSTOPSIG(status)

    def _ask(self, request: int, data: object = 0, size: int = 0) -> None:
        answer = system_call(_SYS_PTRACE, request, self.tgid, size, data)
        if answer < 0:
            raise OSError(-answer, os.strerror(-answer), f"process {self.tgid}")
