"""Runs in a process of its own, which has imported what tests run, and forks one that runs it whenever it is asked."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import termios
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from ..fork_server import forked_sibling

_REQUEST_BYTES = 1 << 20
Main = Callable[[list[str]], int]
"""Takes arguments, and returns an exit code."""


def serve(number: int, main: Main) -> None:
    """Fork for each request, until the other end has gone. `number`: the descriptor of the socket."""
    channel = socket.socket(fileno=number)
    with suppress(KeyboardInterrupt):  # whoever presses it means the tests, and these end this process
        while True:
            message, descriptors, _, _ = socket.recv_fds(channel, _REQUEST_BYTES, 3)
            if not message:
                return
            if not (tgid := forked_sibling()):
                channel.close()
                _become(json.loads(message), descriptors, main)
            for each in descriptors:
                os.close(each)
            channel.send(str(tgid).encode())


def _become(request: Mapping[str, Any], descriptors: Sequence[int], main: Main) -> NoReturn:
    """What the child does: as if a Python were executed with these arguments."""
    status = 1
    try:
        for number, each in enumerate(descriptors):
            os.dup2(each, number)
            os.close(each)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - until the end, as all three
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        if request["session"]:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.path[:0] = request["folders"]
        sys.argv[1:] = request["arguments"]
        status = main(request["arguments"])
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
