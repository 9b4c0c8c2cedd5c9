"""The other end of the agent's socket: what `krie status`, `krie doctor` and `krie clear` say to a running agent."""

from __future__ import annotations

import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

from ..errors import ExitCode, KernelError, KrieError, NotRunningError, UntrustedFileError
from .control import ANSWER_BYTES, SOCKET

TIMEOUT_S = 10.0
"""Longest time for an agent to answer."""


class SilentAgentError(KernelError):
    """Whoever has the agent's socket does not answer as an agent."""

    exit_code = ExitCode.DEGRADED


class RefusedError(KrieError):
    """The agent says that the request makes no sense."""

    exit_code = ExitCode.USAGE


def ask(run_dir: Path, request: dict[str, Any], timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """Send one request; returns the answer, of nobody but root and the current user.

    Raises `NotRunningError`, `KernelError`, `SilentAgentError`, `RefusedError`.
    """
    path = run_dir / SOCKET
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(path))
            _, uid, _ = struct.unpack("=iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid not in (0, os.geteuid()):
                raise UntrustedFileError(str(path), f"user {uid} answers there instead of an agent: see agent.run_dir")
            connection.send(json.dumps(request).encode())
            raw = connection.recv(ANSWER_BYTES)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunningError(path) from error
        except PermissionError as error:
            hint = "only root may; a process that is poisoned may not: use another session, or wait"
            raise KernelError(f"asking the agent at {path}", error.errno or 0, hint) from error
        except TimeoutError as error:
            raise SilentAgentError(f"the agent at {path} gave no answer for {timeout_s:g} s") from error
        except OSError as error:
            raise KernelError(f"asking the agent at {path}", error.errno or 0) from error
    if not raw:
        raise SilentAgentError(f"the agent at {path} closed the connection without replying")
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise SilentAgentError(f"the agent at {path} answers what is not a JSON object: is it of another version?")
    if "error" in answer:
        raise RefusedError(f"the agent refuses: {answer['error']}")
    return answer
