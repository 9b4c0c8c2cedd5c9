"""Programs that tests run, in a cgroup of their own, so that what they do can be told from what the machine does."""

from __future__ import annotations

import itertools
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..kernel.mounts import mounted
from .patience import PATIENCE_S

_NUMBERS = itertools.count()
_HANGS_S = 3 * PATIENCE_S
"""For so long a victim may say nothing: emulated, and beside others, one that does much is slow."""


class Interpreter:
    """A Python that runs one piece of code after the other, each in a process of its own: a fork of itself.

    For processes by the dozen, where the machine is emulated and starting a Python takes half a second. It starts when
    it is first needed: what its processes are executed from is then known to agents that run already.
    """

    def __init__(self, *command: str) -> None:
        """`command`: a Python with its options; by default the one that runs, with the standard library alone."""
        self._command = command or (sys.executable, "-IS")
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def run(self, code: str, *arguments: str, cgroup: Path) -> subprocess.CompletedProcess[str]:
        """Run code in a cgroup; returns when it and whatever else holds its output have ended.

        Raises `subprocess.CalledProcessError` where its status is not 0, `TimeoutError` where they say nothing for long
        and do not end: the test's cgroup ends them.
        """
        channel = self._started()
        readers, writers = zip(*(os.pipe() for _ in range(2)), strict=True)
        request = json.dumps({"code": code, "arguments": arguments, "enter": str(cgroup / "cgroup.procs")})
        try:
            socket.send_fds(channel, [request.encode()], writers)
        finally:
            for each in writers:
                os.close(each)
        try:
            output, error = _read_all(readers)
        except TimeoutError:
            self._abandon()
            raise
        answer = channel.recv(64)
        if not answer:
            raise ChildProcessError("the Python that runs victims has ended")
        done = subprocess.CompletedProcess(["victim", *arguments], int(answer), output, error)
        done.check_returncode()
        return done

    def _abandon(self) -> None:
        """It waits for somebody who does not end: the next one is run by another process."""
        if self._process is not None:
            self._process.kill()
        self.close()

    def close(self) -> None:
        """End the process that runs the code."""
        if self._channel is not None and self._process is not None:
            self._channel.close()
            self._process.wait()
            self._channel = self._process = None

    def _started(self) -> socket.socket:
        if self._channel is None:
            self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                command = [*self._command, "-c", _FORKING, str(theirs.fileno())]
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        return self._channel


def _read_all(descriptors: Sequence[int]) -> list[str]:
    """What comes from pipes until the last writer is gone; closes them. Raises `TimeoutError` where nothing comes."""
    found = dict.fromkeys(descriptors, b"")
    with selectors.DefaultSelector() as waiting:
        for each in descriptors:
            waiting.register(each, selectors.EVENT_READ)
        while waiting.get_map():
            if not (ready := waiting.select(_HANGS_S)):
                for open_ in list(waiting.get_map().values()):
                    os.close(open_.fd)
                said = [each.decode(errors="replace") for each in found.values()]
                raise TimeoutError(f"a victim, or who holds its output, did not end within {_HANGS_S:g} s: {said}")
            for key, _ in ready:
                if more := os.read(key.fd, 65536):
                    found[key.fd] += more
                else:
                    waiting.unregister(key.fd)
                    os.close(key.fd)
    return [each.decode() for each in found.values()]


_FORKING = """
import ctypes, json, os, signal, socket, sys, traceback

def run(request, outputs):
    with open(request["enter"], "w") as file:
        file.write("0")
    for number, each in enumerate(outputs, 1):
        os.dup2(each, number)
        os.close(each)
    sys.argv = ["-c", *request["arguments"]]
    names = {"__name__": "__main__", "ctypes": ctypes, "os": os, "sys": sys, "libc": ctypes.CDLL(None, use_errno=True)}
    exec(compile(request["code"], "<victim>", "exec"), names)

channel = socket.socket(fileno=int(sys.argv[1]))
while True:
    message, outputs, _, _ = socket.recv_fds(channel, 1 << 20, 2)
    if not message:
        break
    child = os.fork()
    if not child:
        status = 1
        try:
            channel.close()
            run(json.loads(message), outputs)
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)
    for each in outputs:
        os.close(each)
    _, status = os.waitpid(child, 0)
    if os.WIFSTOPPED(status):  # one that is traced, by its parent
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    channel.send(str(os.waitstatus_to_exitcode(status)).encode())
"""


class Victims:
    """Runs programs in one cgroup. Needs root."""

    def __init__(self, cgroup: Path, root: Path, interpreter: Interpreter) -> None:
        """`cgroup`: its folder below `root`, the root of the cgroup v2 tree."""
        self._cgroup, self._interpreter = cgroup, interpreter
        self.path = f"/{cgroup.relative_to(root)}"
        """As the journal names it."""

    def run(
        self, code: str, *arguments: str, interpreter: Interpreter | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run Python code, with the standard library alone; `ctypes`, `os`, `sys` and `libc` are defined."""
        return (interpreter or self._interpreter).run(code, *arguments, cgroup=self._cgroup)

    def execute(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a program. A shell enters the cgroup first and then becomes the program."""
        enter = f'echo $$ > {self._cgroup}/cgroup.procs && exec "$@"'
        return subprocess.run(["/bin/sh", "-c", enter, "sh", *command], check=True, capture_output=True, text=True)

    def mine(self, line: Mapping[str, Any]) -> bool:
        """Whether a journal line is about something that happened in the cgroup."""
        return bool(line["process"]["cgroup"]["path"] == self.path)


@contextmanager
def new_victims(interpreter: Interpreter) -> Iterator[Victims]:
    """A cgroup for the time of one test, which ends whatever is still in it then; `interpreter` runs its Python."""
    root = next(each.point for each in mounted("cgroup2") if each.root == "/")
    cgroup = root / f"krie-test-{os.getpid()}-{next(_NUMBERS)}"
    cgroup.mkdir()
    try:
        yield Victims(cgroup, root, interpreter)
    finally:
        _end_all(cgroup / "cgroup.procs")
        cgroup.rmdir()


def _end_all(members: Path, timeout_s: float = PATIENCE_S) -> None:
    """Kill what programs left behind. Where something stays, removing the cgroup fails."""
    deadline = time.monotonic() + timeout_s
    while (left := {int(each) for each in members.read_text().split()}) and time.monotonic() < deadline:
        for tgid in left - {0}:  # 0: one of another PID namespace, and for kill(2) our own process group
            with suppress(ProcessLookupError):
                os.kill(tgid, signal.SIGKILL)
        time.sleep(0.05)
