"""The process of an agent under test: a fork of a Python that has imported the agent, or a Python of its own.

Where the machine is emulated the imports take a third of a start. What is forked is this process's child, as if it had
been executed: it has its own pid, signals, descriptors and end, and the executable, in /proc and for the kernel, is the
same.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Protocol

_RUN = """
import os, sys
sys.path[:0] = {folders!r}
from krie.agent.main import main
os._exit(main(sys.argv[1:]))
"""
_SERVE = """
import sys
from krie.testing.forks import serve
{imports}
serve(int(sys.argv[1]), main)
"""


class AgentProcess(Protocol):
    """What tests do with it: as with a `subprocess.Popen`."""

    pid: int
    returncode: int | None
    stdout: IO[bytes] | None

    def poll(self) -> int | None:
        """Its exit code, if it has ended; negative, by which signal."""

    def wait(self, timeout: float | None = None) -> int:
        """The same, once it has. Raises `subprocess.TimeoutExpired`."""

    def send_signal(self, sig: int) -> None:
        """Nothing where it has ended."""

    def terminate(self) -> None:
        """By SIGTERM."""

    def kill(self) -> None:
        """By SIGKILL."""


def executed(
    arguments: Sequence[str], folders: Sequence[str], stderr: IO[bytes], terminal: int | None
) -> subprocess.Popen[bytes]:
    """An agent in a Python of its own. `folders`: where it looks for plugins, too; `terminal`: of its own session."""
    session = ["setsid", "--ctty"] if terminal is not None else []  # which becomes the agent, in the same process
    command = [*session, sys.executable, "-I", "-c", _RUN.format(folders=list(folders)), *arguments]
    return subprocess.Popen(command, stdin=terminal, stdout=subprocess.PIPE, stderr=stderr)


def forked(arguments: Sequence[str], folders: Sequence[str], stderr: IO[bytes], terminal: int | None) -> AgentProcess:
    """The same without its imports: by a process that is started when this is called first, and ends with this one."""
    return _forks.fork(arguments, folders, stderr, terminal)


def end_forks() -> None:
    """End that process now; the next agent starts another. Agents are not its children."""
    _forks.close()


class _Forked:
    """A child of this process that another one forked."""

    def __init__(self, pid: int, stdout: IO[bytes]) -> None:
        self.pid, self.returncode = pid, None
        self.stdout: IO[bytes] | None = stdout
        self._ends = os.pidfd_open(pid)
        self._waiting = threading.Lock()

    returncode: int | None

    def poll(self) -> int | None:
        with self._waiting:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    os.close(self._ends)
                    self.returncode = os.waitstatus_to_exitcode(status)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.poll() is None:
            select.select([self._ends], [], [], timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired("the agent", timeout or 0.0)
        return code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """A process that forks others as children of this one; it is started when the first is asked for."""

    def __init__(self, imports: str) -> None:
        """`imports`: code that defines the function `main` for them; see `krie.testing.forks.Main`."""
        self._imports = imports
        self._one_at_a_time = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def fork(
        self, arguments: Sequence[str], folders: Sequence[str], stderr: IO[bytes], terminal: int | None = None
    ) -> AgentProcess:
        """One that runs `main`; see `executed`. Raises `OSError`."""
        said, says = os.pipe()
        try:
            with self._one_at_a_time:
                channel = self._started()
                request = {"arguments": arguments, "folders": folders, "session": terminal is not None}
                request |= {"cwd": os.getcwd(), "environment": dict(os.environ)}
                descriptors = [0 if terminal is None else terminal, says, stderr.fileno()]
                socket.send_fds(channel, [json.dumps(request).encode()], descriptors)
                answer = channel.recv(64)
        except BaseException:
            os.close(said)
            raise
        finally:
            os.close(says)
        if not answer:
            os.close(said)
            raise ChildProcessError("the process that forks agents has ended")
        return _Forked(int(answer), os.fdopen(said, "rb"))

    @property
    def tgid(self) -> int:
        """Of the process that forks; 0 where there is none."""
        return self._process.pid if self._process is not None else 0

    def _started(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._channel is None:
            self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                number = theirs.fileno()
                command = [sys.executable, "-I", "-c", _SERVE.format(imports=self._imports), str(number)]
                nothing = subprocess.DEVNULL
                self._process = subprocess.Popen(command, stdin=nothing, stdout=nothing, pass_fds=[number])
            atexit.register(self.close)
        return self._channel

    def close(self) -> None:
        """End it; its children are this process's."""
        atexit.unregister(self.close)
        if self._channel is not None and self._process is not None:
            with suppress(OSError):  # its process may have been killed
                self._channel.shutdown(socket.SHUT_RDWR)  # children of ours may hold it, too
            self._channel.close()
            self._process.wait()
        self._channel = self._process = None


AGENTS = "from krie.agent.main import main"
_forks = Forks(AGENTS)
