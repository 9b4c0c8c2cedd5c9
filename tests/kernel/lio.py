"""A disk of the kernel's own SCSI target (LIO) over a file, to which kernel threads write what comes to the disk."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

from krie.testing.patience import wait_for

_CONFIGFS = Path("/sys/kernel/config")
_TARGET, _NEXUS = "naa.6001405000000001", "naa.6001405000000002"
_MODULES = ("configfs", "sd_mod", "target_core_mod", "target_core_file", "tcm_loop")
SECTOR = 512


@contextmanager
def disk_over(file: Path, lacks: Callable[[str], NoReturn]) -> Iterator[Path]:
    """The device of such a disk."""
    for each in _MODULES:
        if subprocess.run(["modprobe", each], capture_output=True).returncode:
            lacks(f"lio: this kernel has no {each}")
    with ExitStack() as made:

        def folder(path: Path) -> Path:
            if not path.exists():
                path.mkdir()
                made.callback(path.rmdir)
            return path

        if not os.path.ismount(_CONFIGFS):
            subprocess.run(["mount", "-t", "configfs", "none", _CONFIGFS], check=True)
        backing = folder(folder(_CONFIGFS / "target/core/fileio_0") / "krie")
        (backing / "control").write_text(f"fd_dev_name={file},fd_dev_size={1 << 20}")
        (backing / "enable").write_text("1")
        # What configfs makes with a folder is there already, and goes with it.
        portal = folder(folder(folder(_CONFIGFS / "target/loopback") / _TARGET) / "tpgt_1")
        (portal / "nexus").write_text(_NEXUS)
        link = folder(portal / "lun/lun_0") / "krie"
        link.symlink_to(backing)
        made.callback(link.unlink)
        wait_for(_disks)
        (name,) = _disks()
        numbers = Path(f"/sys/block/{name}/dev").read_text().split(":")
        device = Path("/dev") / f"krie-{name}"
        os.mknod(device, 0o600 | 0o060000, os.makedev(*map(int, numbers)))
        made.callback(device.unlink)
        yield device


def _disks() -> list[str]:
    """Names of such disks."""
    found = Path("/sys/block").glob("*/device/vendor")
    return [each.parts[3] for each in found if each.read_text().startswith("LIO-ORG")]
