"""File systems of the kernel's, opened without being mounted anywhere."""

from __future__ import annotations

import os

from .libc import libc

_SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 430, 431, 432  # x86-64, since 5.2
_FSCONFIG_CMD_CREATE = 6
_CLOEXEC = 1  # FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC


def open_root(type_: str) -> int:
    """The root of a file system of this type; -1 where the kernel has none, or refuses it."""
    context = libc.syscall(_SYS_FSOPEN, type_.encode(), _CLOEXEC)
    if context < 0:
        return -1
    try:
        if libc.syscall(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0):
            return -1
        return int(libc.syscall(_SYS_FSMOUNT, context, _CLOEXEC, 0))
    finally:
        os.close(context)


def open_debugfs() -> int:
    """The root of debugfs, mounted nowhere; -1 where the kernel has none."""
    return open_root("debugfs")


def open_tracefs() -> int:
    """The same of tracefs."""
    return open_root("tracefs")


def open_procfs() -> int:
    """The same of procfs, in the PID namespace of this process; -1 also where a container may have no other one."""
    return open_root("proc")
