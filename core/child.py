"""Children of the agent that run what may not end or block it, with a socket to each.

Whatever a child does (crash, hang, eat its memory), the other end gets `ChildEnded` or `TimeoutError`, and `Child.end`
says how it ended. Children end with the agent, also when that is killed.

A process that has threads forks by another one: see `krie.fork_server`.
"""

from __future__ import annotations

import gc
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NoReturn

from .errors import ForkError
from .kernel_files import KernelFile, let_go
from .libc import libc
from .procfs import procfs

_LENGTH = struct.Struct("=Q")
_PIECE = 1 << 18
_SLICE_S = 0.02
_LEAVES_WITHIN_S, _DIES_WITHIN_S = 0.2, 1.0
_SAID = 300
_LOW = 256
"""Descriptors below are closed without being listed, since a listing needs one."""
_OOM_SCORE = KernelFile("/proc/self/oom_score_adj")
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
NAME = "krie-policy"
"""What these processes are called in /proc and by ps."""
Run = Callable[["Link"], None]
"""What a child does; it ends with that."""


class ChildEnded(Exception):
    """The other end has gone."""


class Link:
    """One end of a socket between two processes of KRIe. Values are pickled: both ends are the same program."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over the socket."""
        self.socket = sock
        self._buffer = bytearray()

    def send(self, value: object, timeout_s: float | None = None) -> None:
        """Send a value. Raises `ChildEnded`, `TimeoutError`."""
        self.send_bytes(pickle.dumps(value), timeout_s)

    def receive(self, timeout_s: float | None = None, meanwhile: Callable[[], object] = list) -> Any:
        """Wait for a value; `meanwhile` is called again and again. Raises `ChildEnded`, `TimeoutError`."""
        return pickle.loads(self.receive_bytes(timeout_s, meanwhile))  # noqa: S301 - from a process that we forked

    def send_bytes(self, body: bytes, timeout_s: float | None = None) -> None:
        """The same for bytes."""
        try:
            self.socket.settimeout(timeout_s)
            self.socket.sendall(_LENGTH.pack(len(body)) + body)
        except TimeoutError:
            raise
        except OSError as error:
            raise ChildEnded from error

    def receive_bytes(self, timeout_s: float | None = None, meanwhile: Callable[[], object] = list) -> bytes:
        """The same for bytes."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if len(self._buffer) >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(self._buffer)
                if len(self._buffer) >= _LENGTH.size + length:
                    body = bytes(self._buffer[_LENGTH.size : _LENGTH.size + length])
                    del self._buffer[: _LENGTH.size + length]
                    return body
            self._receive_piece(end, meanwhile)

    def _receive_piece(self, end: float | None, meanwhile: Callable[[], object]) -> None:
        left = None if end is None else end - time.monotonic()
        try:
            self.socket.settimeout(None if left is None else max(1e-6, min(left, _SLICE_S)))
            piece = self.socket.recv(_PIECE)
        except TimeoutError:
            meanwhile()
            if left is not None and left <= _SLICE_S:
                raise
            return
        except OSError as error:
            raise ChildEnded from error
        if not piece:
            raise ChildEnded
        self._buffer += piece

    def close(self) -> None:
        """Close this end."""
        self.socket.close()


class Child(Link):
    """The agent's end of the link, and the child behind it."""

    def __init__(self, tgid: int, sock: socket.socket, said: int) -> None:
        """`said`: descriptor of a file for what the child writes to its standard error; both are taken over."""
        super().__init__(sock)
        self.tgid, self._said = tgid, said
        self._how = ""

    @property
    def stopped(self) -> bool:
        """Whether somebody has stopped it by a signal or traces it."""
        try:
            return procfs().read(f"{self.tgid}/stat").rpartition(b")")[2].split()[0] in (b"T", b"t")
        except (OSError, IndexError):
            return False

    def end(self, grace_s: float = _LEAVES_WITHIN_S) -> str:
        """End it if it still runs; returns how it ended. To be called once at least; again, it says the same.

        `grace_s`: how long it may take to leave by itself.
        """
        if not self._how:
            self.close()
            # Its own death comes a moment after its socket's; a kill before that would hide it.
            status = self._reaped(grace_s)
            if status is None:
                with suppress(ProcessLookupError):
                    os.kill(self.tgid, signal.SIGKILL)
                status = self._reaped(_DIES_WITHIN_S)
                self._how = "was ended" if status is not None else "hangs in the kernel and could not be ended"
            elif status < 0:
                self._how = f"was ended by {_signal(-status)}"
            else:
                self._how = f"exited with status {status}"
            size = os.fstat(self._said).st_size
            text = os.pread(self._said, _SAID, max(0, size - _SAID)).decode(errors="backslashreplace")
            said = " ".join(text.split())
            os.close(self._said)
            self._how += f" ({said})" if said else ""
        return self._how

    def _reaped(self, timeout_s: float) -> int | None:
        end = time.monotonic() + timeout_s
        while True:
            try:
                tgid, status = os.waitpid(self.tgid, os.WNOHANG)
            except ChildProcessError:
                return 0
            if tgid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() >= end:
                return None
            time.sleep(0.001)


def _signal(number: int) -> str:
    """Its name; Python has none for most of the real-time ones."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def pair() -> tuple[socket.socket, socket.socket, int]:
    """A socket's two ends, and a file for what a child says. Raises `KernelError` where no descriptors are left."""
    with ExitStack() as opened:
        try:
            mine, theirs = map(opened.enter_context, socket.socketpair())
            said = os.memfd_create("krie-said", os.MFD_CLOEXEC)
        except OSError as error:
            raise ForkError("an evaluator of policies", error.errno or 0) from error
        opened.pop_all()
    return mine, theirs, said


def forked(run: Run, name: str = NAME) -> Child:
    """Fork a child of this very process, which /proc and ps call `name`. Raises `KernelError`."""
    mine, theirs, said = pair()
    parent = os.getpid()
    try:
        tgid = os.fork()
    except OSError as error:
        mine.close()
        theirs.close()
        os.close(said)
        raise ForkError(name, error.errno or 0) from error
    if not tgid:
        become(theirs, said, parent, run, name)
    theirs.close()
    return Child(tgid, mine, said)


def become(sock: socket.socket, said: int, parent: int, run: Run, name: str = NAME) -> NoReturn:
    """What a forked child does: nothing of the agent's is left to it but its socket and a file for what it says."""
    status = 1
    try:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(0)
        for signalled in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(
                signalled, signal.SIG_IGN
            )  # the agent's, which a service manager sends to all of its processes
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        keep_only(sock.fileno(), said)
        sys.stdout = sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - until the end
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        gc.freeze()  # what is shared with the parent stays so
        run(Link(sock))
        status = 0
    except ChildEnded:
        status = 0
    except BaseException:  # this process may not go on as a second agent, whatever happens
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stderr.flush()
        os._exit(status)


def keep_only(kept: int, said: int) -> None:
    """Let this process have nothing but this descriptor, nothing to read, and `said` to write to.

    It takes no descriptor more than there are: a parent that has used up all of them is to be told so.
    """
    for written in (1, 2):
        os.dup2(said, written)
    with suppress(OSError):  # it may be closed
        os.close(0)
    os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)  # as 0, the lowest that is free
    os.closerange(3, kept)
    os.closerange(kept + 1, max(kept + 1, _LOW))
    left = [int(each.name) for each in KernelFile("/proc/self/fd").iterdir()]
    let_go()
    for number in left:
        if number > 2 and number != kept:
            with suppress(OSError):  # those of the listing
                os.close(number)


def limit_memory(mib: int) -> None:
    """Let this process take no more than so much besides what it has now."""
    pages = int(KernelFile("/proc/self/statm").read_text().split()[0])
    let_go()
    most = pages * resource.getpagesize() + (mib << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


@contextmanager
def first_to_end() -> Iterator[None]:
    """Within, this process is the one that the kernel ends where all memory is used up: nothing is lost with it."""
    before = _OOM_SCORE.read_bytes()
    with suppress(OSError):
        _OOM_SCORE.write_bytes(b"1000")
    let_go()
    try:
        yield
    finally:
        with suppress(OSError):
            _OOM_SCORE.write_bytes(before)
        let_go()


@contextmanager
def memory_unlimited() -> Iterator[None]:
    """Lift the limit for programs that this process starts within."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def limit_time(seconds: int | None) -> None:
    """Let this process take no more CPU time than so much from now on; None: as much as it likes."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = resource.RLIM_INFINITY if seconds is None else int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))
