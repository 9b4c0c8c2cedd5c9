"""Tells the service manager that the agent is ready: sd_notify(3), without its library."""

from __future__ import annotations

import logging
import os
import socket

_log = logging.getLogger(__name__)
_VARIABLE = "NOTIFY_SOCKET"


def tell_ready() -> None:
    """Say once that probes are attached and the agent answers. Does nothing where no service manager asked for it."""
    path = os.environ.pop(_VARIABLE, "")
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.sendto(b"READY=1", address)
    except OSError as error:
        _log.warning("cannot tell the service manager at %s that the agent is ready: %s", path, error)
