"""The tables by which decisions take effect in the kernel: see `bpf/verdict.bpf.c`. Values and their bytes only."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntFlag
from functools import partial

from ..errors import KernelError
from ..events.identity import Identity, Key
from ..kernel import bpf
from ..kernel.maps import Map

_log = logging.getLogger("krie")
_PROCESS = struct.Struct("=QII")
_VERDICT = struct.Struct("=QIIQII")
_BUSY = struct.Struct("=II")
_SETTINGS = struct.Struct("=QQII")
_FILE = struct.Struct("=QII")
_ZERO = bytes(4)
_POISON, _CLEAR, _FLAGS = 1, 2, 3  # KRIE_CHANGE_...


class Flags(IntFlag):
    """Why programs look further although nobody is poisoned; `KRIE_BUSY_...` in C."""

    HOST = 1
    GUARD = 2
    CANARY = 4


def _file(identity: Identity) -> bytes:
    return _FILE.pack(identity.ino, identity.dev, identity.generation)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is decided about a process: everything guarded (kind 0: poison), or operations of one kind."""

    process: Key
    kind: int
    until: int
    """ns since boot."""
    rule: int
    """The agent's number of the rule; 0: a program in the kernel decided by itself."""
    errno: int


class Verdicts:
    """Reads and writes the tables. Errors are `KernelError`."""

    def __init__(
        self, maps: Mapping[str, Map], change: int, run: Callable[[int, tuple[int, ...]], object] = bpf.test_run
    ) -> None:
        """`change`: descriptor of the program `krie_change`, which `run` runs."""
        self._poisoned, self._verdicts = maps["krie_poisoned"], maps["krie_verdicts"]
        self._busy, self._settings = maps["krie_busy"], maps["krie_settings"]
        self._protected, self._enforcing = maps["krie_protected"], maps["krie_enforcing"]
        self._change = partial(run, change)

    def poison(self, verdict: Verdict) -> bool:
        """Poison a process, or prolong it; False where the table is full."""
        key = verdict.process
        self._change((_POISON, key.tgid, key.start_time, verdict.until, verdict.rule, verdict.errno))
        return self._poisoned.get(_PROCESS.pack(key.start_time, key.tgid, 0)) is not None

    def bind(self, verdict: Verdict) -> None:
        """Refuse operations of one kind by one process from now on. Raises `KernelError` where the table is full."""
        key = _PROCESS.pack(verdict.process.start_time, verdict.process.tgid, verdict.kind)
        self._verdicts.set(key, key + struct.pack("=QII", verdict.until, verdict.rule, verdict.errno))

    def poisoned(self) -> Iterator[Verdict]:
        """All poisoned processes, those inherited and those that programs in the kernel poisoned too."""
        return self._read(self._poisoned)

    def bound(self) -> Iterator[Verdict]:
        """All verdicts on operations of one kind."""
        return self._read(self._verdicts)

    def clear(self, verdict: Verdict) -> None:
        """Take one back."""
        key = verdict.process
        if verdict.kind:
            self._verdicts.remove(_PROCESS.pack(key.start_time, key.tgid, verdict.kind))
        else:
            self._change((_CLEAR, key.tgid, key.start_time, 0, 0, 0))

    def set_poison_time(self, poison_ns: int) -> None:
        """Time that poison by programs in the kernel lasts."""
        self._set_settings(poison_ns=poison_ns)

    def bind_host(self, verdict: Verdict) -> None:
        """Refuse guarded operations to every process that is not exempt."""
        self._set_settings(until=verdict.until, rule=verdict.rule, errno=verdict.errno)
        self.set_flags(self.flags() | Flags.HOST)

    def free_host(self) -> None:
        """Take the verdict on the host back."""
        self.set_flags(self.flags() & ~Flags.HOST)
        self._set_settings(until=0, rule=0, errno=0)

    def host(self) -> Verdict | None:
        """The verdict on the whole host."""
        if Flags.HOST not in self.flags():
            return None
        _, until, rule, errno = _SETTINGS.unpack(self._settings.get(_ZERO) or bytes(_SETTINGS.size))
        return Verdict(Key(0, 0), 0, until, rule, errno)

    def flags(self) -> Flags:
        """Those that are set."""
        return Flags(_BUSY.unpack(self._busy.get(_ZERO) or bytes(_BUSY.size))[1])

    def count(self) -> int:
        """Poisoned processes, as programs see it."""
        return int(_BUSY.unpack(self._busy.get(_ZERO) or bytes(_BUSY.size))[0])

    def set_flags(self, flags: Flags) -> None:
        """Set just these. The count beside them is the kernel's: see `krie_change`."""
        self._change((_FLAGS, int(flags), 0, 0, 0, 0))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While the agent runs canaries: containment's programs count them although nobody is poisoned."""
        self.set_flags(self.flags() | Flags.CANARY)
        try:
            yield
        finally:
            self.set_flags(self.flags() & ~Flags.CANARY)

    def protect(self, files: Iterable[Identity]) -> None:
        """Let no verdict in the kernel hit these executables either. Raises `KernelError`; then nothing has changed."""
        known = {key for key, _ in self._protected.items()}
        added = []
        try:
            for key in {_file(each) for each in files} - known:
                self._protected.set(key, struct.pack("=I", 1))
                added.append(key)
        except KernelError:
            self._unprotect(added)
            raise

    def protect_only(self, files: Iterable[Identity]) -> None:
        """Let verdicts hit every other executable again. Never raises: one that stays protected is told in the log."""
        wanted = {_file(each) for each in files}
        try:
            self._unprotect(key for key, _ in list(self._protected.items()) if key not in wanted)
        except KernelError as error:
            _log.error("executables that are no longer protected may stay so: %s", error)

    def _unprotect(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            try:
                self._protected.remove(key)
            except KernelError as error:
                _log.error("an executable stays protected: %s", error)

    def enforce(self, sensors: Iterable[bool]) -> None:
        """Which sensors may kill in the kernel, in their order there."""
        for index, enforces in enumerate(sensors):
            self._enforcing.set(struct.pack("=I", index), struct.pack("=I", enforces))

    def _set_settings(self, **changed: int) -> None:
        names = ("poison_ns", "until", "rule", "errno")
        known = _SETTINGS.unpack(self._settings.get(_ZERO) or bytes(_SETTINGS.size))
        self._settings.set(_ZERO, _SETTINGS.pack(*{**dict(zip(names, known, strict=True)), **changed}.values()))

    @staticmethod
    def _read(table: Map) -> Iterator[Verdict]:
        for _, value in table.items():
            start_time, tgid, kind, until, rule, errno = _VERDICT.unpack(value)
            yield Verdict(Key(tgid, start_time), kind, until, rule, errno)
