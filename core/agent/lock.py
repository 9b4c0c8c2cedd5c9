"""One agent a machine: a lock that names its holder, and ends with it."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from ..errors import AlreadyRunningError, ConfigError


def hold(folder: Path) -> int:
    """Take the lock; returns the descriptor that holds it. Raises `AlreadyRunningError`, `ConfigError`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError("agent.run_dir", f"{folder} cannot be used: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigError("agent.run_dir", f"{folder / 'agent.lock'} is not a regular file: remove it")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0)
        os.close(descriptor)
        raise AlreadyRunningError(int(holder) if holder.strip().isdigit() else 0) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
