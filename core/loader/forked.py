"""What a process that the agent forks does first."""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from ..child import keep_only
from ..libc import libc

NAME = "krie-loader"
"""As the kernel and `ps` know it."""
_PR_SET_NAME = 15
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


def become(channel: socket.socket, stderr: int, serve: Callable[[socket.socket], None]) -> NoReturn:
    """What the forked child does: nothing of the agent's is left to it but the channel and a file for what it says."""
    status = 1
    try:
        libc.prctl(_PR_SET_NAME, NAME.encode(), 0, 0, 0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        keep_only(channel.fileno(), stderr)
        sys.stdout = sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - until the end
        warnings.simplefilter("ignore")  # whatever the agent makes of them
        os.environ.clear()
        os.environ.update(_ENVIRONMENT)
        serve(channel)
        status = 0
    except BaseException:  # this process may not go on as a second agent, whatever happens
        traceback.print_exc()
    finally:
        with suppress(BaseException):  # or it would return
            sys.stderr.flush()
        os._exit(status)
