"""Perf events: one for all processes on one CPU, with a BPF program or without."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

from ..libc import libc

TRACEPOINT, SOFTWARE = 2, 1
"""Types, PERF_TYPE_..."""
_SYS_PERF_EVENT_OPEN = 298  # x86-64
_CLOEXEC = 8  # PERF_FLAG_FD_CLOEXEC
_IOC_ENABLE, _IOC_SET_BPF = 0x2400, 0x40042408
_DISABLED = 1
_ATTRIBUTES = struct.Struct("=IIQQQQQIIQQ")
_SIZE = 112


def perf_event(
    type_: int, config: int, *, program: int = -1, period: int = 0, config1: int = 0, config2: int = 0, cpu: int = 0
) -> int:
    """Open one and, where there is a program (a descriptor), attach that and enable it. Raises `OSError`.

    What the event is about is in use from the opening on: a kprobe is armed, enabled or not.
    """
    attributes = _ATTRIBUTES.pack(type_, _SIZE, config, period, 0, 0, _DISABLED, 0, 0, config1, config2)
    buffer = ctypes.create_string_buffer(attributes.ljust(_SIZE, b"\0"), _SIZE)
    event: int = libc.syscall(_SYS_PERF_EVENT_OPEN, ctypes.byref(buffer), -1, cpu, -1, _CLOEXEC)
    if event < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    if program < 0:
        return event
    try:
        fcntl.ioctl(event, _IOC_SET_BPF, program)
        fcntl.ioctl(event, _IOC_ENABLE, 0)
    except OSError:
        os.close(event)
        raise
    return event


def enable(event: int) -> None:
    """Have one run its program again that somebody disabled, who had a descriptor of it. Raises `OSError`.

    Of one that is enabled this changes nothing, and in no case the kernel's text.
    """
    fcntl.ioctl(event, _IOC_ENABLE, 0)
