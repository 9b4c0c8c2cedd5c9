"""Finds the cgroup v2 tree wherever it is mounted, or mounts it privately."""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import KernelError
from ..kernel_files import KernelFile
from ..libc import libc

_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_FOLDER = Path("/sys/fs/bpf")
"""Covered by a folder of our own in the private namespace; it exists wherever the kernel has BPF."""
_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    root: str
    point: Path
    type: str


def mounted(type_: str) -> list[Mount]:
    """All mounts of a file system type in this mount namespace. Users choose names of others (FUSE): any bytes."""
    found = []
    for line in KernelFile("/proc/self/mountinfo").read_bytes().split(b"\n"):
        before, _, after = line.partition(b" - ")
        if after.partition(b" ")[0] == type_.encode():
            root, point = before.split(b" ")[3:5]
            found.append(Mount(os.fsdecode(_unescaped(root)), Path(os.fsdecode(_unescaped(point))), type_))
    return found


def _unescaped(name: bytes) -> bytes:
    """What the kernel escapes is a blank, a tab, a line break, a backslash, and `#`."""
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), name)


def private_namespace() -> Path:
    """Let this process mount without anybody else seeing it; returns an empty folder that vanishes with the process.

    Raises `KernelError`.
    """
    if libc.unshare(_CLONE_NEWNS) or libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        raise KernelError("making a private mount namespace", ctypes.get_errno())
    _mount("tmpfs", _FOLDER)
    return _FOLDER


def cgroup2() -> Path:
    """The root of the cgroup v2 tree; mounted if it is mounted nowhere, so call `private_namespace` first."""
    return _find("cgroup2", Path("/sys/fs/cgroup"))


def security_modules() -> frozenset[str] | None:
    """The active security modules, as securityfs lists them; None where there is no securityfs."""
    try:
        return frozenset(KernelFile("/sys/kernel/security/lsm").read_text().strip().split(","))
    except OSError:
        return None


def _find(type_: str, usual: Path) -> Path:
    for each in mounted(type_):
        if each.root == "/" and each.point.is_dir():
            return each.point
    _mount(type_, usual)
    return usual


def _mount(type_: str, point: Path) -> None:
    if libc.mount(type_.encode(), os.fsencode(point), type_.encode(), 0, None):
        raise KernelError(f"mounting {type_} at {point}", ctypes.get_errno(), "is it compiled into this kernel?")
