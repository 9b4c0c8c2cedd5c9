"""File systems of the kernel's, opened without being mounted anywhere."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable

from .libc import libc

_SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 430, 431, 432  # x86-64, since 5.2
_FSCONFIG_SET_FLAG, _FSCONFIG_CMD_CREATE = 0, 6
_CLOEXEC = 1  # FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC
PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR})
"""Why something fails now that may succeed later."""


def open_root(type_: str, options: Iterable[str] = (), if_known: Iterable[str] = ()) -> int:
    """The root of a file system of this type; -1 where the kernel has none, or refuses it. Raises `OSError` where it
    only fails now.

    `options`: all of these are set, and of `if_known` those that this kernel knows.
    """
    context = _answer(libc.syscall(_SYS_FSOPEN, type_.encode(), _CLOEXEC))
    if context < 0:
        return -1
    try:
        for each in if_known:
            _configure(context, _FSCONFIG_SET_FLAG, each.encode())
        if any(_configure(context, _FSCONFIG_SET_FLAG, each.encode()) for each in options):
            return -1
        if _configure(context, _FSCONFIG_CMD_CREATE):
            return -1
        return _answer(libc.syscall(_SYS_FSMOUNT, context, _CLOEXEC, 0))
    finally:
        os.close(context)


def open_debugfs() -> int:
    """The root of debugfs, mounted nowhere; -1 where there is none."""
    return _open_if_possible("debugfs")


def open_tracefs() -> int:
    """The same of tracefs."""
    return _open_if_possible("tracefs")


def open_procfs() -> int:
    """The same of procfs, in the PID namespace of this process; -1 also where a container may have no other one. Raises
    as `open_root` does."""
    return open_root("proc")


def _open_if_possible(type_: str) -> int:
    try:
        return open_root(type_)
    except OSError:
        return -1


def _configure(context: int, command: int, option: bytes | None = None) -> int:
    return _answer(libc.syscall(_SYS_FSCONFIG, context, command, option, None, 0))


def _answer(returned: int) -> int:
    if returned < 0 and (why := ctypes.get_errno()) in PASSING:
        raise OSError(why, os.strerror(why))
    return int(returned)
