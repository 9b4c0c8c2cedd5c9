"""What is mounted where, and the cgroup v2 tree wherever that is."""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import KernelError
from ..kernel_files import KernelFile
from ..libc import libc
from ..roots import open_root
from ..tree import Tree

_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_FOLDER = Path("/sys/fs/bpf")
"""Covered by a folder of our own in the private namespace; it exists wherever the kernel has BPF."""
_NOT_OF_CGROUPS = {"", "rw", "ro", "seclabel"}
"""What mountinfo shows beside the options of cgroup v2."""
_ON_BY_DEFAULT = {"favordynmods"}
"""Options that a kernel may be built to have on, since 6.0; it says those that are on."""
_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    root: str
    point: Path
    type: str
    options: str
    """Of the file system, wherever it is mounted."""


def mounted(type_: str) -> list[Mount]:
    """All mounts of a file system type in this mount namespace. Users choose names of others (FUSE): any bytes."""
    return mounted_for("self", type_)


def mounted_for(process: str, type_: str) -> list[Mount]:
    """The same in that of another process."""
    found = []
    for line in KernelFile(f"/proc/{process}/mountinfo").read_bytes().split(b"\n"):
        before, _, after = line.partition(b" - ")
        if after.partition(b" ")[0] == type_.encode():
            root, point = (os.fsdecode(_unescaped(each)) for each in before.split(b" ")[3:5])
            found.append(Mount(root, Path(point), type_, os.fsdecode(after.rpartition(b" ")[2])))
    return found


def mount_points() -> set[tuple[int, Path]]:
    """Number and place of all mounts in this mount namespace."""
    fields = (line.split(b" ", 5) for line in KernelFile("/proc/self/mountinfo").read_bytes().split(b"\n") if line)
    return {(int(each[0]), Path(os.fsdecode(_unescaped(each[4])))) for each in fields}


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


def cgroup2() -> Tree | None:
    """The cgroup v2 tree, mounted nowhere, or else where it is mounted; None where there is none. The caller closes it.

    Opening it sets the options of the one tree that there is: to what they are. Raises `OSError`.
    """
    here = mounted_for("self", "cgroup2")
    shown = next((each.options for each in here or mounted_for("1", "cgroup2")), "")
    options = set(shown.split(",")) - _NOT_OF_CGROUPS
    root = open_root("cgroup2", options, {f"no{each}" for each in _ON_BY_DEFAULT - options})
    point = next((str(each.point) for each in here if each.root == "/"), "")
    return Tree.own(root, point) if root >= 0 or point else None


def security_modules() -> frozenset[str] | None:
    """The active security modules, as securityfs lists them; None where there is no securityfs."""
    try:
        return frozenset(KernelFile("/sys/kernel/security/lsm").read_text().strip().split(","))
    except OSError:
        return None


def _mount(type_: str, point: Path) -> None:
    if libc.mount(type_.encode(), os.fsencode(point), type_.encode(), 0, None):
        raise KernelError(f"mounting {type_} at {point}", ctypes.get_errno(), "is it compiled into this kernel?")
