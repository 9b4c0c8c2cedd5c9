"""Children of the agent that run what may not end or block it: a socket to each, and a process that forks them.

Whatever a child does (crash, hang, eat its memory), the other end gets `ChildEnded` or `TimeoutError`, and `Child.end`
says how it ended. Children end with the agent, also when that is killed.

The agent has threads, and tables that grow: forked from it late, a child could find a lock held for ever, and would
keep a copy of every page that the agent changes. So `ForkServer` is forked early, and forks all others.
"""

from __future__ import annotations

import ctypes
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
from pathlib import Path
from typing import Any, NoReturn

from .errors import ForkError, KernelError

_LENGTH = struct.Struct("=Q")
_TGID = struct.Struct("=i")
_PIECE = 1 << 18
_SLICE_S = 0.02
_ANSWERS_WITHIN_S = 5.0
_LEAVES_WITHIN_S, _DIES_WITHIN_S = 0.2, 1.0
_SAID = 300
_LOW = 256
"""Descriptors below are closed without being listed, since a listing needs one."""
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
NAME = "krie-policy"
"""What these processes are called in /proc and by ps."""
_SYS_CLONE, _CLONE_PARENT = 56, 0x8000
_libc = ctypes.CDLL(None, use_errno=True)
_python = ctypes.PyDLL(None)  # keeps the interpreter's lock, which a child that it was let go for would never get
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
        self.socket.settimeout(timeout_s)
        try:
            self.socket.sendall(_LENGTH.pack(len(body)) + body)
        except (BrokenPipeError, ConnectionResetError) as error:
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
        self.socket.settimeout(None if left is None else max(1e-6, min(left, _SLICE_S)))
        try:
            piece = self.socket.recv(_PIECE)
        except TimeoutError:
            meanwhile()
            if left is not None and left <= _SLICE_S:
                raise
            return
        except ConnectionResetError as error:
            raise ChildEnded from error
        if not piece:
            raise ChildEnded
        self._buffer += piece

    def close(self) -> None:
        """Close this end."""
        self.socket.close()


class Child(Link):
    """The agent's end."""

    def __init__(self, tgid: int, sock: socket.socket, said: int) -> None:
        """`said`: descriptor of a file for what the child writes to its standard error; both are taken over."""
        super().__init__(sock)
        self.tgid, self._said = tgid, said
        self._how = ""

    @property
    def stopped(self) -> bool:
        """Whether somebody has stopped it by a signal or traces it."""
        try:
            return Path(f"/proc/{self.tgid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
        except OSError:
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


def _pair() -> tuple[socket.socket, socket.socket, int]:
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
    mine, theirs, said = _pair()
    parent = os.getpid()
    try:
        tgid = os.fork()
    except OSError as error:
        mine.close()
        theirs.close()
        os.close(said)
        raise ForkError(name, error.errno or 0) from error
    if not tgid:
        _become(theirs, said, parent, run, name)
    theirs.close()
    return Child(tgid, mine, said)


def forked_by(server: Link, timeout_s: float = _ANSWERS_WITHIN_S) -> Child:
    """Have a process that runs `serve_forks` fork one, which becomes a child of this process. Raises `ChildEnded`,
    `TimeoutError`; `KernelError` where there is no room for it."""
    mine, theirs, said = _pair()
    try:
        server.socket.settimeout(timeout_s)
        socket.send_fds(server.socket, [b"F"], [theirs.fileno(), said])
        answer = server.socket.recv(_TGID.size, socket.MSG_WAITALL)
    except TimeoutError:
        server.close()  # a late answer would be taken for that to the next request
        mine.close()
        os.close(said)
        raise
    except OSError as error:
        mine.close()
        os.close(said)
        raise ChildEnded from error
    finally:
        theirs.close()
    tgid = _TGID.unpack(answer)[0] if len(answer) == _TGID.size else -1
    if tgid <= 0:
        mine.close()
        os.close(said)
        if tgid < 0:
            raise ChildEnded
        raise KernelError("forking an evaluator of policies")
    return Child(tgid, mine, said)


def serve_forks(link: Link, run: Run, name: str = NAME) -> None:
    """Fork a child that does `run` for each request, until the other end has gone.

    They are children of this process's parent: that one learns how they end, and to the kernel's side of KRIe they are
    the agent's own, as this process is.
    """
    link.socket.settimeout(None)
    while True:
        data, descriptors, _, _ = socket.recv_fds(link.socket, 1, 2)
        if not data:
            return
        theirs, said = descriptors
        tgid = _sibling(theirs, said, run, name)
        for each in descriptors:
            os.close(each)
        link.socket.sendall(_TGID.pack(max(0, tgid)))


def _sibling(theirs: int, said: int, run: Run, name: str) -> int:
    """Fork a child of this process's parent; returns its tgid.

    Python's own fork knows no CLONE_PARENT. This process has one thread, so that nothing is to be done before.
    """
    parent = os.getppid()
    tgid: int = _python.syscall(_SYS_CLONE, _CLONE_PARENT | signal.SIGCHLD, None, None, None, None)
    if not tgid:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        _become(socket.socket(fileno=theirs), said, parent, run, name)
    return tgid


def _become(sock: socket.socket, said: int, parent: int, run: Run, name: str = NAME) -> NoReturn:
    """What a forked child does: nothing of the agent's is left to it but its socket and a file for what it says."""
    status = 1
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)
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
        with suppress(OSError):  # it is a wish: before anything else ends for want of memory, this one does
            Path("/proc/self/oom_score_adj").write_text("1000")
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
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number != kept:
            with suppress(OSError):  # the listing's own
                os.close(number)


class ForkServer:
    """The process that forks all others. It holds nothing but what was imported when it was made."""

    def __init__(self, run: Run, name: str = NAME) -> None:
        """Fork it. What it forks does `run`, and is called `name`."""
        self._run, self._name = run, name
        self._server = forked(self._serve, name)

    @property
    def tgid(self) -> int:
        """Of the server."""
        return self._server.tgid

    def fork(self) -> Child:
        """A new child. Raises `KernelError`."""
        for _ in range(2):
            try:
                if self._server.stopped:
                    raise ChildEnded
                return forked_by(self._server)
            except (ChildEnded, TimeoutError):  # somebody has ended or stopped it
                self._server.end(0.0)
                self._server = forked(self._serve, self._name)
        raise KernelError("forking an evaluator of policies", 0, "the process that does it ends at once")

    def close(self) -> None:
        """End the server; its children are others' to end."""
        self._server.end()

    def _serve(self, link: Link) -> None:
        serve_forks(link, self._run, self._name)


def limit_memory(mib: int) -> None:
    """Let this process take no more than so much besides what it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + (mib << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


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
