"""The agent's end of the comparison of the kernel's code: asks for looks, and tells what is new in their reports."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

from krie import Child, ChildEnded, KernelError, KernelMemory, forked, loaded_modules

from .areas import Stored
from .code_child import NAME, SECRET_BYTES, Report, serve
from .entered import Change
from .events import Code, Listed
from .names import Difference

_AGAIN_S = 60.0
"""How long to wait before another process is started in the place of one that ended."""
_MODULES_S = 5.0
"""Looks for the sake of modules that come and go are at least so far apart: each reads all symbols again."""
_ANSWERS_WITHIN_S = 900.0
"""Where everything is emulated, to unpack an image alone takes minutes."""
_CHARS = 127
_COMPARED = {
    "start": "the kernel's code is compared with what it was at the agent's start",
    "none": "the kernel's code is not compared",
}
_log = logging.getLogger("krie")


class CodeWatch:
    """One process that compares, and what of its reports was told."""

    def __init__(self, memory: KernelMemory) -> None:
        """Start it: it makes the reference, and takes a first look. Raises `KernelError`."""
        if memory.spare is None:
            raise KernelError("comparing code", 0, "there is no second program that reads memory")
        self._spare = memory.spare
        self._file = os.memfd_create("krie-code", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._stored: Stored | None = None
        self._child: Child | None = None
        self._started = self._asked = 0.0
        self._waiting = self._wanted = False
        self._told: dict[tuple[int, int], Difference] = {}
        self._modules = loaded_modules()
        self._compared = 0
        self._unknown: tuple[str, ...] = ("code: the first look at it is not over",)
        self._start()

    @property
    def idle(self) -> bool:
        """Whether all looks that were asked for are over."""
        return not self._waiting and not self._wanted

    @property
    def tgid(self) -> int:
        """Of the process; 0 while there is none."""
        return self._child.tgid if self._child is not None else 0

    @property
    def reference(self) -> str:
        """What code is compared with."""
        return self._stored.reference if self._stored is not None else "none"

    @property
    def unknown(self) -> tuple[str, ...]:
        """What is not looked at, and why."""
        return self._unknown

    def compared(self) -> int:
        """Bytes since this was last asked."""
        compared, self._compared = self._compared, 0
        return compared

    def ask(self) -> None:
        """Have a look taken: now, or after the one that is on its way."""
        self._wanted = True
        self._ask()

    def poll(self) -> Iterator[Code | Listed]:
        """Events for what the child process has reported since the last call."""
        if self._child is None:
            if time.monotonic() - self._started > _AGAIN_S:
                self._start()
            return
        modules = loaded_modules()
        if modules != self._modules and time.monotonic() - self._asked > _MODULES_S:
            self._modules, self._wanted = modules, True
        try:
            while True:
                answer = self._child.receive(0.0)
                if isinstance(answer, Stored):
                    self._stored = answer
                    if answer.why:
                        _log.warning("plugin syscall_table: %s: %s", _COMPARED[answer.reference], answer.why)
                else:
                    self._waiting = False
                    yield from self._take(answer)
        except TimeoutError:
            if self._waiting and time.monotonic() - self._asked > _ANSWERS_WITHIN_S:
                self._end("does not answer")
        except ChildEnded:
            self._end("ended")
        self._ask()

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.end(0.0)
            self._child = None
        os.close(self._file)

    def _start(self) -> None:
        self._started = time.monotonic()
        try:
            self._child = forked(serve, NAME)
        except KernelError as error:
            _log.error("plugin syscall_table does not compare the kernel's code: %s", error)
            return
        with suppress(ChildEnded, OSError):  # that it has ended is seen when it is asked
            *spare, secret = self._spare
            message = secret.to_bytes(SECRET_BYTES, "little")
            socket.send_fds(self._child.socket, [message], [*spare, self._file])
            self._child.send(self._stored)
        self._asked, self._waiting = self._started, True

    def _ask(self) -> None:
        if self._wanted and not self._waiting and self._child is not None:
            self._wanted, self._waiting, self._asked = False, True, time.monotonic()
            with suppress(ChildEnded, TimeoutError):
                self._child.send(None, 0.0)

    def _end(self, how: str) -> None:
        child, self._child = self._child, None
        said = child.end(0.0) if child is not None else ""
        self._unknown = (f"code: the process that compares it {said}",)
        _log.error("plugin syscall_table: the process that compares the kernel's code %s: it %s", how, said)

    def _take(self, report: Report) -> Iterator[Code | Listed]:
        self._compared += report.compared
        self._unknown = report.unknown
        yield from map(_listed, report.changes)
        now = {(each.address, each.length): each for each in report.differences}
        if not report.compared:
            return
        for key, each in now.items():
            if (before := self._told.get(key)) is None or before.digest != each.digest:
                yield self._event(each, others=report.others)
        for key, each in self._told.items():
            gone = not any(address < key[0] + key[1] and key[0] < address + length for address, length in now)
            if gone and report.says_of(each) and not report.others:
                yield self._event(each, restored=True)
        self._told = now if not report.others else {**self._told, **now}

    def _event(self, each: Difference, *, others: int = 0, restored: bool = False) -> Code:
        was, now = (each.now, each.was) if restored else (each.was, each.now)
        return Code.without_header(
            address=each.address,
            target=0 if restored else each.target,
            length=each.length,
            others=others,
            was=was,
            now=now,
            symbol=each.place[:_CHARS],
            target_symbol="" if restored else each.target_symbol[:_CHARS],
            owner="" if restored else each.owner,
            section=each.section,
            reference=each.reference or self.reference,
            restored=restored,
        )


def _listed(change: Change) -> Listed:
    return Listed.without_header(
        address=change.entry.address,
        function=change.entry.function,
        list=change.entry.list,
        symbol=change.symbol[:_CHARS],
        owner=change.owner,
        came=change.came,
    )
