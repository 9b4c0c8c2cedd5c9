"""What the agent guards of itself beyond its process: its maps, and the switch that turns all kprobes off."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from .kernel import bpf
from .kernel.maps import Map
from .process import Identity

_SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 430, 431, 432  # x86-64, since 5.2
_FSCONFIG_CMD_CREATE = 6
_CLOEXEC = 1  # FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC
_SWITCH = "kprobes/enabled"
_libc = ctypes.CDLL(None, use_errno=True)


def open_debugfs() -> int:
    """The root of debugfs, mounted nowhere; -1 where the kernel has none."""
    return _open_root("debugfs")


def open_tracefs() -> int:
    """The same of tracefs."""
    return _open_root("tracefs")


def _open_root(type_: str) -> int:
    context = _libc.syscall(_SYS_FSOPEN, type_.encode(), _CLOEXEC)
    if context < 0:
        return -1
    try:
        if _libc.syscall(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0):
            return -1
        return int(_libc.syscall(_SYS_FSMOUNT, context, _CLOEXEC, 0))
    finally:
        os.close(context)


class Guard:
    """Knows the agent's own things; the programs of the containment sensor refuse access to them."""

    def __init__(
        self, open_debugfs: Callable[[], int] = open_debugfs, number_of: Callable[[int], int] = bpf.map_id
    ) -> None:
        """Open debugfs for ourselves alone: whether and where it is mounted is not ours to depend on.

        `number_of` tells the number of a map by its descriptor.
        """
        self._debugfs, self._number_of = open_debugfs(), number_of

    def close(self) -> None:
        """Let go of it."""
        if self._debugfs >= 0:
            os.close(self._debugfs)

    def prepare(self, maps: Mapping[str, Map], own: Iterable[Map], identify: Callable[[int], Identity]) -> None:
        """Tell the programs what they guard; `maps` are the sensor's own."""
        for each in own:
            maps["containment_own_maps"].set(struct.pack("=I", self._number_of(each.descriptor)), struct.pack("=I", 1))
        with suppress(OSError):  # this kernel has no kprobes
            descriptor = os.open(_SWITCH, os.O_PATH | os.O_CLOEXEC, dir_fd=self._debugfs)
            try:
                file = identify(descriptor)
            finally:
                os.close(descriptor)
            maps["containment_switch"].set(bytes(4), struct.pack("=QII", file.ino, file.dev, file.generation))

    def kprobes_off(self) -> bool:
        """Whether all kprobes are disarmed, by the switch or by a write to the kernel's variable behind it.

        False where that cannot be known: without kprobes, or where lockdown refuses the file.
        """
        try:
            descriptor = os.open(_SWITCH, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._debugfs)
        except OSError:
            return False
        try:
            return os.read(descriptor, 8).strip() == b"0"
        finally:
            os.close(descriptor)
