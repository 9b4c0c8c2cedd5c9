"""Lets BCC compile without a kernel: one thread's system calls that would reach BPF are answered here instead.

BCC makes every map with bpf(2) while it compiles, which takes root and a kernel that has BPF, and looks for helpers in
/proc/kallsyms of the kernel that happens to run. A seccomp filter on the compiling thread hands these calls to the
thread that waits for it (seccomp_unotify(2), which anybody may use): a map becomes a note of its shape, and its
descriptor one of /dev/null, so that BCC's instructions carry numbers that tell the maps apart.

The filter does not depend on how BCC reaches the kernel. Replacing `bpf_map_create` would: some distributions link
libbpf into libbcc, where no symbol can be replaced.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import struct
import threading
from collections.abc import Callable
from typing import TypeVar

from ..errors import KernelError
from ..libc import libc
from .bpf import Command, MapShape
from .bpf_attributes import MapCreate

_T = TypeVar("_T")
_PR_SET_NO_NEW_PRIVS = 38
_SYS_SECCOMP, _SYS_OPENAT, _SYS_GETEUID, _SYS_BPF = 317, 257, 107, 321  # x86-64
_ARCH_X86_64 = 0xC000003E
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3
_ASK, _ALLOW, _ANSWER_ZERO = 0x7FC00000, 0x7FFF0000, 0x00050000
_CONTINUE = 1
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_ASKED, _ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
_STACK_BYTES = 64 << 20
"""For clang, which recurses; only what it uses is ever had."""
_SYMBOLS = "/proc/kallsyms"
_HELPERS = "".join(
    f"ffffffff81000000 T bpf_probe_read_{name}\n" for name in ("kernel", "kernel_str", "user", "user_str")
).encode()

"""All that BCC looks for in the kernel's symbols; every kernel that KRIe runs on has them (5.5, 6ae08ae3dea2)."""


def without_kernel(work: Callable[[], _T]) -> tuple[_T, dict[int, MapShape]]:
    """Do the work on a thread of its own; returns its result and the maps that it believes to have made, by descriptor.

    The descriptors stay open. Every other use of bpf(2) fails with EPERM. Raises `KernelError` where the kernel refuses
    such a filter, and what the work raises. The work must import nothing: the loader of shared objects would wait for
    an answer while it keeps Python from giving one.
    """
    answers = _Answers()
    try:
        return answers.run(work), answers.maps
    finally:
        answers.close()


class _Answers:
    def __init__(self) -> None:
        self.maps: dict[int, MapShape] = {}
        self._ended = os.eventfd(0, os.EFD_CLOEXEC)
        self._installed = threading.Event()
        self._listener = -1
        self._error = 0

    def run(self, work: Callable[[], _T]) -> _T:
        results: list[_T] = []
        raised: list[BaseException] = []

        def on_thread() -> None:
            try:
                signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # one would interrupt what is answered
                self._install()
                if self._listener >= 0:
                    results.append(work())
            except BaseException as error:
                raised.append(error)
            finally:
                self._installed.set()
                os.eventfd_write(self._ended, 1)

        before = threading.stack_size(_STACK_BYTES)
        try:
            thread = threading.Thread(target=on_thread, name="krie-compile", daemon=True)
            thread.start()
        finally:
            threading.stack_size(before)
        self._installed.wait()
        if self._listener >= 0:
            self._answer_until_ended()
        thread.join()
        if raised:
            raise raised[0]
        if self._listener < 0:
            busy = "only one such filter can watch a process: compile outside of this container, with krie compile"
            hint = busy if self._error == errno.EBUSY else "this takes a kernel with CONFIG_SECCOMP_FILTER, since 5.5"
            raise KernelError("installing the filter that compiling needs", self._error, hint)
        return results[0]

    def close(self) -> None:
        for each in (self._listener, self._ended):
            if each >= 0:
                os.close(each)

    def _install(self) -> None:
        steps = (
            (0x20, 0, 0, 4),  # load the architecture
            (0x15, 0, 5, _ARCH_X86_64),
            (0x20, 0, 0, 0),  # load the number of the call
            (0x15, 4, 0, _SYS_BPF),
            (0x15, 3, 0, _SYS_OPENAT),
            (0x15, 0, 1, _SYS_GETEUID),  # BCC asks only root's kernel for symbols
            (0x06, 0, 0, _ANSWER_ZERO),
            (0x06, 0, 0, _ALLOW),
            (0x06, 0, 0, _ASK),
        )
        code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
        program = struct.pack("=HxxxxxxQ", len(steps), ctypes.addressof(code))
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)  # for this thread, and without it only root may
        self._listener = libc.syscall(_SYS_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER, program)
        self._error = ctypes.get_errno()
        self._installed.set()

    def _answer_until_ended(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._ended, select.POLLIN)
        while self._ended not in (ready := {descriptor for descriptor, _ in poll.poll()}):
            if self._listener in ready:
                self._answer_one()

    def _answer_one(self) -> None:
        asked = bytearray(_ASKED.size)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, asked)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # a signal came first: the call is made again
                return
            raise
        number, _, _, call, _, _, *arguments = _ASKED.unpack(asked)
        value, failure, flags = self._opened(arguments[1]) if call == _SYS_OPENAT else self._bpf(*arguments[:3])
        fcntl.ioctl(self._listener, _SEND, _ANSWER.pack(number, value, -failure, flags))

    def _bpf(self, command: int, attributes: int, size: int) -> tuple[int, int, int]:
        if command != Command.MAP_CREATE:
            return 0, errno.EPERM, 0
        wanted = ctypes.sizeof(MapCreate)
        asked = MapCreate.from_buffer_copy(ctypes.string_at(attributes, min(size, wanted)).ljust(wanted, b"\0"))
        descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.maps[descriptor] = MapShape(
            asked.map_type,
            asked.key_size,
            asked.value_size,
            asked.max_entries,
            asked.map_flags,
            asked.map_name.decode(),
        )
        return descriptor, 0, 0

    @staticmethod
    def _opened(path: int) -> tuple[int, int, int]:
        if ctypes.string_at(path) != _SYMBOLS.encode():
            return 0, 0, _CONTINUE
        symbols = os.memfd_create("kallsyms")
        os.write(symbols, _HELPERS)
        os.lseek(symbols, 0, os.SEEK_SET)
        return symbols, 0, 0
