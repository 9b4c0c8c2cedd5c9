"""Perf events: what perf_event_open(2) is asked; one for all processes on one CPU, with a BPF program or without."""

from __future__ import annotations

import ctypes
import fcntl
import os
from ctypes import c_uint32, c_uint64

from ..libc import system_call

SOFTWARE, TRACEPOINT = 1, 2
"""Types, PERF_TYPE_..."""
DUMMY = 9
"""PERF_COUNT_SW_DUMMY: the software event that counts nothing."""
_SYS_PERF_EVENT_OPEN = 298  # x86-64
_CLOEXEC = 8  # PERF_FLAG_FD_CLOEXEC
_IOC_ENABLE, _IOC_SET_BPF = 0x2400, 0x40042408


class PerfEventAttr(ctypes.Structure):
    """`struct perf_event_attr` of include/uapi/linux/perf_event.h, with the kernel's names, as far as KRIe uses it.

    It ends where PERF_ATTR_SIZE_VER1 does: the kernel takes the rest as zero. `size` is filled in.
    """

    _fields_ = (
        ("type", c_uint32),
        ("size", c_uint32),
        ("config", c_uint64),
        ("sample_period", c_uint64),
        ("sample_type", c_uint64),
        ("read_format", c_uint64),
        ("disabled", c_uint64, 1),
        ("inherit", c_uint64, 1),
        ("pinned", c_uint64, 1),
        ("exclusive", c_uint64, 1),
        ("exclude_user", c_uint64, 1),
        ("exclude_kernel", c_uint64, 1),
        ("exclude_hv", c_uint64, 1),
        ("_other_flags", c_uint64, 57),
        ("wakeup_events", c_uint32),
        ("bp_type", c_uint32),
        ("config1", c_uint64),
        ("config2", c_uint64),
    )

    def __init__(self, **fields: int) -> None:
        """Zeros but for these fields."""
        super().__init__(size=ctypes.sizeof(PerfEventAttr), **fields)


def perf_event_open(attributes: PerfEventAttr, pid: int, cpu: int) -> int:
    """Make the system call: the event's descriptor, close-on-exec, or a negative errno.

    `pid`: 0 for this thread, -1 for all processes on the CPU. `cpu`: -1 for whichever the process runs on.
    """
    return system_call(_SYS_PERF_EVENT_OPEN, ctypes.byref(attributes), pid, cpu, -1, _CLOEXEC)


def perf_event(
    type_: int, config: int, *, program: int = -1, period: int = 0, config1: int = 0, config2: int = 0, cpu: int = 0
) -> int:
    """Open one and, where there is a program (a descriptor), attach that and enable it. Raises `OSError`.

    What the event is about is in use from the opening on: a kprobe is armed, enabled or not.
    """
    attributes = PerfEventAttr(
        type=type_, config=config, sample_period=period, disabled=1, config1=config1, config2=config2
    )
    event = perf_event_open(attributes, -1, cpu)
    if event < 0:
        raise OSError(-event, os.strerror(-event))
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
