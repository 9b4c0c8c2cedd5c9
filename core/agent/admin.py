"""The other end of the agent's socket: what `krie status`, `krie doctor` and `krie clear` say to a running agent."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from ..errors import ExitCode, KernelError, KrieError, NotRunningError
from .control import ANSWER_BYTES, SOCKET

TIMEOUT_S = 10.0
"""Longest time for an agent to answer."""


class RefusedError(KrieError):
    """The agent says that the request makes no sense."""

    exit_code = ExitCode.USAGE


def ask(run_dir: Path, request: dict[str, Any], timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """Send one request; returns the answer. Raises `NotRunningError`, `KernelError`, `RefusedError`."""
    path = run_dir / SOCKET
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(path))
            connection.send(json.dumps(request).encode())
            raw = connection.recv(ANSWER_BYTES)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunningError(path) from error
        except PermissionError as error:
            hint = "only root may; a process that is poisoned may not: use another session, or wait"
            raise KernelError(f"asking the agent at {path}", error.errno or 0, hint) from error
        except TimeoutError as error:
            raise KernelError(f"the agent at {path} gave no answer for {timeout_s:g} s") from error
        except OSError as error:
            raise KernelError(f"asking the agent at {path}", error.errno or 0) from error
    if not raw:
        raise KernelError(f"the agent at {path} closed the connection without replying")
    answer = json.loads(raw)
    if "error" in answer:
        raise RefusedError(f"the agent refuses: {answer['error']}")
    return dict(answer)
