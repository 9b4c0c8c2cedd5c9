"""The kernel `override`: Debian's own source with error injection, by which `bpf_override_return` can be tested."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from ...errors import LabError
from .archive import Archive
from .programs import environment, require, virtme_ng

PACKAGE = "linux-source-6.12"
_PROGRAMS = {
    **{name: name for name in ("gcc", "make", "flex", "bison", "bc", "tar")},
    "pahole": "dwarves",
    "xz": "xz-utils",
    "/usr/include/libelf.h": "libelf-dev",
    "/usr/include/openssl/opensslv.h": "libssl-dev",
}
_LOG_LINES = 5


def build(archive: Archive, folder: Path, say: Callable[[str], None]) -> tuple[str, Path]:
    """Build in `folder`, and leave nothing there but the image; returns release and image. Raises `LabError`."""
    require(_PROGRAMS)
    say(f"override: downloading {PACKAGE} (some 150 MB)")
    archive.unpack([PACKAGE], folder)
    say("override: unpacking it")
    _run(["tar", "-C", str(folder), "-xf", str(folder / f"usr/src/{PACKAGE}.tar.xz")], folder)
    source = folder / PACKAGE
    shutil.rmtree(folder / "usr")
    with (folder / "override.config").open("w") as file:
        file.write(files(__package__).joinpath("override.config").read_text())
    _run([virtme_ng(), "--kconfig", "--config", str(folder / "override.config")], source)
    say("override: compiling (some 15 minutes on 2 CPUs, once)")
    _run(["make", "-s", f"-j{os.cpu_count() or 1}", "bzImage"], source)
    release = _run(["make", "-s", "kernelrelease"], source).strip()
    image = folder / "vmlinuz-override"
    shutil.move(source / "arch/x86/boot/bzImage", image)
    shutil.rmtree(source)
    return release, image


def _run(command: list[str], folder: Path) -> str:
    log = folder / "build.log"
    with log.open("w+") as output:
        done = subprocess.run(
            command, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
        )
        output.seek(0)
        said = output.read()
    if done.returncode:
        last = "\n".join(said.splitlines()[-_LOG_LINES:])
        raise LabError(f"{' '.join(command[:4])} failed with status {done.returncode}:\n{last}")
    return said
