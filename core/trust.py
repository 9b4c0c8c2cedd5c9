"""Files that steer a root process must not be changeable by anybody else."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from .errors import ConfigError, UntrustedFileError

_MOST_BYTES = 16 << 20


def read_trusted(path: Path, most: int = _MOST_BYTES) -> bytes:
    """Read a file that steers the agent, of at most so many bytes.

    Raises `ConfigError` where it cannot be read, `UntrustedFileError` where somebody else than root, the current user
    or the user who called sudo could change it or a folder above it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UntrustedFileError(str(path), "is not a regular file")
        _require(path, status)
        require_trusted(path)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(most + 1)
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(content) > most:
        raise ConfigError(str(path), f"is larger than {most >> 20} MiB")
    return content


def require_trusted(path: Path) -> None:
    """Raise `UntrustedFileError` where others could change this file, or which file it is. Raises `OSError` too."""
    for step in _way_to(path):
        _require(step, step.lstat())


def _way_to(path: Path) -> Iterator[Path]:
    """The file, and every folder and symbolic link that leads to it: who controls one of them chooses the file."""
    seen: set[Path] = set()
    targets = [path.absolute()]
    while targets:
        target = targets.pop()
        for step in (target, *target.parents):
            if step in seen:
                continue
            seen.add(step)
            if step.is_symlink():
                targets.append(step.parent / step.readlink())
            yield step


def _trusted_owners() -> frozenset[int]:
    """Root, ourselves, and the user who became root by sudo: that one could change everything anyway."""
    own = os.geteuid()
    sudo = os.environ.get("SUDO_UID", "")
    return frozenset({0, own} | ({int(sudo)} if own == 0 and sudo.isdecimal() else set()))


def _require(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in _trusted_owners():
        chown = "chown -h" if stat.S_ISLNK(status.st_mode) else "chown"
        raise UntrustedFileError(
            str(path), f"belongs to user {status.st_uid}, who could change it: {chown} root {path}"
        )
    writable = status.st_mode & stat.S_IWOTH or (
        status.st_mode & stat.S_IWGRP and status.st_gid not in (0, os.getegid())
    )
    sticky_folder = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    # The mode of a link says nothing: only its owner can replace it, unless the folder allows more.
    if writable and not sticky_folder and not stat.S_ISLNK(status.st_mode):
        raise UntrustedFileError(str(path), f"can be changed by other users: chmod go-w {path}")
