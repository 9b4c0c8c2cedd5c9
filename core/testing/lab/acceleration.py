"""Whether KVM works here: asked by booting a kernel, since a device that is there may still hang every guest."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import time
from pathlib import Path

from .cache import Cache

_PATIENCE_S = 6.0
_SIGN_OF_LIFE = b"Linux version"


def kvm_works(image: Path, cache: Cache) -> bool:
    """Whether a guest with KVM gets as far as saying its version. Asked once a boot of this machine."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK) or shutil.which("qemu-system-x86_64") is None:
        return False
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    answer = cache.root / ".kvm"
    with cache.locked("kvm"):
        if answer.exists() and answer.read_text().partition(" ")[0] == boot:
            return answer.read_text().endswith("works")
        works = _boots(image)
        answer.write_text(f"{boot} {'works' if works else 'hangs'}")
    return works


def _boots(image: Path) -> bool:
    command = [
        "qemu-system-x86_64",
        "-accel",
        "kvm",
        "-m",
        "512",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]
    command += ["-serial", "stdio", "-kernel", str(image), "-append", "console=ttyS0 panic=-1"]
    guest = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert guest.stdout is not None
    said = b""
    deadline = time.monotonic() + _PATIENCE_S
    try:
        while _SIGN_OF_LIFE not in said:
            if not select.select([guest.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return False
            if not (more := os.read(guest.stdout.fileno(), 65536)):
                return False
            said += more
        return True
    finally:
        guest.kill()
        guest.wait()
        guest.stdout.close()
