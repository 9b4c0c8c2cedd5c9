"""Kernel modules for guests: built by the kernel's own build system from the headers that belong to it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from ...errors import LabError
from .cache import Cache
from .kernels import Kernel
from .toolchain import WORK, toolchain


def build_module(kernel: Kernel, source: Path, cache: Cache, say: Callable[[str], None]) -> Path:
    """Build the one module whose sources and Makefile are in the folder `source`; returns its .ko in the cache.

    Raises `LabError`; see `build_modules`.
    """
    made = list(build_modules(kernel, source, cache, say).glob("*.ko"))
    if len(made) != 1:
        raise LabError(f"{source} makes {len(made)} modules instead of one")
    return made[0]


def build_modules(kernel: Kernel, source: Path, cache: Cache, say: Callable[[str], None]) -> Path:
    """Build all modules of a folder with a Makefile; returns the folder in the cache that has them.

    Built again only when the sources or the kernel are others. Raises `LabError`, with what the compiler said.
    """
    if kernel.headers is None:
        raise LabError(f"no headers are known for {kernel.image}: modules are built for the lab's own kernels only")
    files = sorted(each for each in source.iterdir() if each.name == "Makefile" or each.suffix in (".c", ".h", ".S"))
    if not files:
        raise LabError(f"{source} holds no Makefile and C files of a module")
    digest = hashlib.sha256()
    for each in files:
        content = each.read_bytes()
        digest.update(f"{each.name} {len(content)}\n".encode() + content)
    name = f"module-{kernel.release}-{digest.hexdigest()[:16]}"
    tools = toolchain(cache, say)
    with cache.locked(name):
        if not cache.folder(name).exists():
            say(f"{kernel.name}: building {source.name}")
            with cache.making(name) as folder:
                for each in files:
                    shutil.copy(each, folder)
                build = f"/usr/src/linux-headers-{kernel.release}"
                tools.run(["make", "-s", "-C", build, f"M={WORK}", "CC=gcc", "modules"], folder, [kernel.headers])
    return cache.folder(name)
