"""The tables by which decisions take effect in the kernel: see `bpf/verdict.bpf.c`. Values and their bytes only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from ..errors import KernelError
from ..events import core_maps
from ..events.core_maps import SHARES, Busy, Change, File, Flags, Process, Settings
from ..events.identity import Identity, Key
from ..events.numbers import ONLY, PRESENT, WORD
from ..kernel import bpf
from ..kernel.maps import Map

_log = logging.getLogger("krie")


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
    share: int = 0
    """Of the room, which poison takes: `share_of` the user."""


def share_of(payer: int) -> int:
    """The number of a user's share of the room for poisoned processes, or of a container's: as `krie_share_now()`."""
    return payer % (SHARES // 2) | payer >> 31 << 15


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

    def poison(self, verdict: Verdict, *, beyond_share: bool = False) -> bool:
        """Poison a process, or prolong it; False where there is no room, or its share of it is used up."""
        key, error = verdict.process, verdict.errno | verdict.share << 16
        how = Change.POISON_BEYOND_SHARE if beyond_share else Change.POISON
        self._change((how, key.tgid, key.start_time, verdict.until, verdict.rule, error))
        return self.stands(verdict)

    def stands(self, verdict: Verdict) -> bool:
        """Whether the process is poisoned."""
        return self._poisoned.get(Process(verdict.process.start_time, verdict.process.tgid).encode()) is not None

    def bind(self, verdict: Verdict) -> None:
        """Refuse operations of one kind by one process from now on. Raises `KernelError` where the table is full."""
        process = Process(verdict.process.start_time, verdict.process.tgid, verdict.kind)
        standing = core_maps.Verdict(process, verdict.until, verdict.rule, verdict.errno)
        self._verdicts.set(process.encode(), standing.encode())

    def poisoned(self) -> Iterator[Verdict]:
        """All poisoned processes, those inherited and those that programs in the kernel poisoned too."""
        return self._read(self._poisoned)

    def bound(self) -> Iterator[Verdict]:
        """All verdicts on operations of one kind."""
        return self._read(self._verdicts)

    def clear(self, verdict: Verdict) -> None:
        """Remove a verdict before it expires."""
        key = verdict.process
        if verdict.kind:
            self._verdicts.remove(Process(key.start_time, key.tgid, verdict.kind).encode())
        else:
            self._change((Change.CLEAR, key.tgid, key.start_time, 0, 0, 0))

    def expire(self, verdict: Verdict) -> None:
        """Take poison back, unless it was prolonged since this was read of it."""
        key = verdict.process
        self._change((Change.EXPIRE, key.tgid, key.start_time, verdict.until, 0, 0))

    def set_poison_time(self, poison_ns: int) -> None:
        """Time that poison by programs in the kernel lasts."""
        self._settings.set(ONLY, replace(self._set, poison_ns=poison_ns).encode())

    def bind_host(self, verdict: Verdict) -> None:
        """Refuse guarded operations to every process that is not exempt."""
        self._set_host(verdict.until, verdict.rule, verdict.errno)
        self.set_flags(self.flags() | Flags.HOST)

    def free_host(self) -> None:
        """Take the verdict on the host back."""
        self.set_flags(self.flags() & ~Flags.HOST)
        self._set_host(0, 0, 0)

    def host(self) -> Verdict | None:
        """The verdict on the whole host."""
        if Flags.HOST not in self.flags():
            return None
        now = self._set
        return Verdict(Key(0, 0), 0, now.host_until, now.host_rule, now.host_error)

    def flags(self) -> Flags:
        """Those that are set."""
        return Flags(Busy.decode(self._busy.get(ONLY)).flags)

    def count(self) -> int:
        """Poisoned processes, as programs see it."""
        return Busy.decode(self._busy.get(ONLY)).poisoned

    def left_out(self) -> int:
        """How often a user had no room for another poisoned process."""
        return Busy.decode(self._busy.get(ONLY)).left_out

    def set_flags(self, flags: Flags) -> None:
        """Set just these. The count beside them is the kernel's: see `krie_change`."""
        self._change((Change.FLAGS, int(flags), 0, 0, 0, 0))

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
            for key in set(map(File.key, files)) - known:
                self._protected.set(key, PRESENT)
                added.append(key)
        except KernelError:
            self._unprotect(added)
            raise

    def protect_only(self, files: Iterable[Identity]) -> None:
        """Let verdicts hit every other executable again. Never raises: one that stays protected is told in the log."""
        wanted = set(map(File.key, files))
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
            self._enforcing.set(WORD.encode(index), WORD.encode(enforces))

    @property
    def _set(self) -> Settings:
        return Settings.decode(self._settings.get(ONLY))

    def _set_host(self, until: int, rule: int, error: int) -> None:
        self._settings.set(ONLY, replace(self._set, host_until=until, host_rule=rule, host_error=error).encode())

    @staticmethod
    def _read(table: Map) -> Iterator[Verdict]:
        for _, value in table.items():
            found = core_maps.Verdict.decode(value)
            process = found.process
            key = Key(process.tgid, process.start_time)
            yield Verdict(key, process.kind, found.until, found.rule, found.error, found.share)
