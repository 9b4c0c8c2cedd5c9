"""Programs of others that the lab calls; one that is missing is named with its package."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from ...errors import LabError


def virtme_ng() -> str:
    """Path of virtme-ng's program. Raises `LabError`."""
    beside = Path(sys.executable).with_name("vng")
    found = str(beside) if beside.exists() else shutil.which("vng")
    if found is None:
        raise LabError("virtme-ng is missing: install KRIe with its extra `lab`")
    return found


def environment() -> dict[str, str]:
    """With a PATH on which virtme-ng finds its other programs, and depmod."""
    return {**os.environ, "PATH": f"{Path(virtme_ng()).parent}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


def require(packages: Mapping[str, str]) -> None:
    """Raise `LabError` unless all programs are there; `packages` has Debian's package for each program or file."""
    path = environment()["PATH"]
    missing = {
        package
        for program, package in packages.items()
        if not (Path(program).exists() if program.startswith("/") else shutil.which(program, path=path))
    }
    if missing:
        raise LabError(f"the lab needs what is not installed: apt-get install {' '.join(sorted(missing))}")
