"""The kernel `override`: Debian's own source with error injection, by which `bpf_override_return` can be tested."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from .archive import Archive
from .toolchain import WORK, Toolchain

PACKAGE = "linux-source-6.12"


def build(archive: Archive, tools: Toolchain, folder: Path, say: Callable[[str], None]) -> tuple[str, Path]:
    """Build in `folder`, and leave nothing there but the image and what modules are built with, laid out as Debian's
    header packages are; returns release and image. Raises `LabError`.
    """
    say(f"override: downloading {PACKAGE} (some 150 MB)")
    archive.unpack([PACKAGE], folder)
    say("override: unpacking it")
    tools.run(["tar", "-xf", f"usr/src/{PACKAGE}.tar.xz"], folder)
    shutil.rmtree(folder / "usr")
    source = folder / PACKAGE
    fragment = files(__package__).joinpath("override.config").read_text()
    (source / "kernel/configs/override.config").write_text(fragment)
    tools.run(["make", "-s", "x86_64_defconfig", "kvm_guest.config", "override.config"], source)
    say("override: compiling (some 15 minutes on 2 CPUs, once)")
    tools.run(["make", "-s", f"-j{os.cpu_count() or 1}", "bzImage", "modules_prepare"], source)
    release = tools.run(["make", "-s", "kernelrelease"], source).strip()
    headers = folder / f"headers/usr/src/linux-headers-{release}"
    headers.mkdir(parents=True)
    _install_headers(tools, source, headers)
    image = folder / "vmlinuz-override"
    shutil.move(source / "arch/x86/boot/bzImage", image)
    shutil.rmtree(source)
    return release, image


def _install_headers(tools: Toolchain, source: Path, headers: Path) -> None:
    """What modules are built with, by the kernel's own script for packages."""
    # No driver of this kernel is a module, so these are all symbols that there are.
    shutil.copy(source / "vmlinux.symvers", source / "Module.symvers")
    settings = [f"{name}=." for name in ("srctree", "objtree")]
    settings += ["SRCARCH=x86", "KCONFIG_CONFIG=.config", "CC=gcc", "HOSTCC=gcc", "MAKE=make"]
    tools.run(["env", *settings, "bash", "scripts/package/install-extmod-build", f"{WORK}/extmod"], source)
    for each in (source / "extmod").iterdir():
        shutil.move(each, headers / each.name)
