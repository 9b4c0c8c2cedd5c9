"""A process that forks all others for one that has threads.

The agent has threads, and tables that grow: forked from it late, a child could find a lock held for ever, and would
keep a copy of every page that the agent changes. So a `ForkServer` is forked early, and forks its children.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import time
from dataclasses import dataclass

from .child import NAME, Child, ChildEnded, Link, Run, become, forked, pair
from .errors import KernelError

_TGID = struct.Struct("=i")
_ANSWERS_WITHIN_S = 5.0
_SYS_CLONE, _CLONE_PARENT = 56, 0x8000
_python = ctypes.PyDLL(None)  # keeps the interpreter's lock, which a child that it was let go for would never get


@dataclass(frozen=True, slots=True)
class Awaited:
    """A child that was asked for."""

    mine: socket.socket
    said: int
    until: float
    """When it should be there, by the monotonic clock."""

    def child(self, server: Link, timeout_s: float) -> Child:
        """It, if it is there within so long. Raises `TimeoutError`, and then may be asked again; `ChildEnded`;
        `KernelError` where there is no room for it."""
        try:
            server.socket.settimeout(timeout_s)
            answer = server.socket.recv(_TGID.size)
        except BlockingIOError as error:
            raise TimeoutError from error
        except TimeoutError:
            raise
        except OSError as error:
            raise ChildEnded from error
        tgid = _TGID.unpack(answer)[0] if len(answer) == _TGID.size else -1
        if tgid < 0:
            raise ChildEnded
        if not tgid:
            raise KernelError("forking an evaluator of policies")
        return Child(tgid, self.mine, self.said)

    def close(self) -> None:
        """Forget about it."""
        self.mine.close()
        os.close(self.said)


def asked(server: Link, timeout_s: float) -> Awaited:
    """Ask a process that runs `serve_forks` for a child of this process. Raises `ChildEnded`; `KernelError` where no
    descriptors are left."""
    mine, theirs, said = pair()
    awaited = Awaited(mine, said, time.monotonic() + timeout_s)
    try:
        server.socket.settimeout(timeout_s)
        socket.send_fds(server.socket, [b"F"], [theirs.fileno(), said])
    except OSError as error:
        awaited.close()
        raise ChildEnded from error
    finally:
        theirs.close()
    return awaited


def forked_by(server: Link, timeout_s: float = _ANSWERS_WITHIN_S) -> Child:
    """Have it fork one, and wait for that. Raises as `Awaited.child` does; after a `TimeoutError` it is of no use."""
    awaited = asked(server, timeout_s)
    try:
        return awaited.child(server, timeout_s)
    except TimeoutError:
        server.close()  # a late answer would be taken for that to the next request
        awaited.close()
        raise
    except (ChildEnded, KernelError):
        awaited.close()
        raise


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
    """Fork a child of this process's parent, which does `run`; returns its tgid."""
    parent = os.getppid()
    tgid = forked_sibling()
    if not tgid:
        become(socket.socket(fileno=theirs), said, parent, run, name)
    return tgid


def forked_sibling() -> int:
    """Fork a child of this process's parent; returns its tgid, in the child 0, and below 0 where there is no room.

    Python's own fork knows no CLONE_PARENT. This process must have one thread, so that nothing is to be done before.
    """
    tgid: int = _python.syscall(_SYS_CLONE, _CLONE_PARENT | signal.SIGCHLD, None, None, None, None)
    if not tgid:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    return tgid


class ForkServer:
    """The process that forks all others. It holds nothing but what was imported when it was made."""

    def __init__(self, run: Run, name: str = NAME) -> None:
        """Fork it. What it forks does `run`, and is called `name`."""
        self._run, self._name = run, name
        self._awaited: Awaited | None = None
        self._failures = 0
        """In a row."""
        self._server = forked(self._serve, name)

    @property
    def tgid(self) -> int:
        """Thread group id of the server's process."""
        return self._server.tgid

    def fork(self) -> Child:
        """A new child. Raises `KernelError`."""
        while True:
            if (child := self.soon(_ANSWERS_WITHIN_S)) is not None:
                return child

    def soon(self, within_s: float = 0.0) -> Child | None:
        """A new child, if it is there within so long, by default at once; None: it is not yet, so ask again.

        Raises `KernelError`. A server that was ended or stopped, or gives no answer for long, is replaced.
        """
        try:
            if self._awaited is None:
                if self._server.stopped:
                    raise ChildEnded
                self._awaited = asked(self._server, _ANSWERS_WITHIN_S)
            child = self._awaited.child(self._server, within_s)
        except TimeoutError:
            if self._awaited is None or time.monotonic() >= self._awaited.until:
                self._replace()
            return None
        except ChildEnded:
            self._replace()
            return None
        except KernelError:
            self._forget()
            raise
        self._awaited, self._failures = None, 0
        return child

    def close(self) -> None:
        """End the server; its children are others' to end."""
        self._forget()
        self._server.end()

    def _replace(self) -> None:
        """Raises `KernelError` if it is the second one that failed."""
        self._forget()
        self._server.end(0.0)  # a late answer would be taken for that to the next request
        self._server = forked(self._serve, self._name)
        self._failures += 1
        if self._failures > 1:
            self._failures = 0
            raise KernelError("forking an evaluator of policies", 0, "the process that does it ends at once, or hangs")

    def _forget(self) -> None:
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            awaited.close()

    def _serve(self, link: Link) -> None:
        serve_forks(link, self._run, self._name)
