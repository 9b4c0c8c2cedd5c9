"""What each process runs, as the kernel side noted it when that was executed, and what has influenced it since.

The table is `krie_images` of `bpf/image.bpf.c`. Programs fill it at fork and exec; of processes that are older than the
agent it is filled from here, before anything is decided.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from ..errors import KernelError
from ..events.core_maps import File
from ..events.event import INFLUENCE
from ..events.identity import Identity
from ..events.layout import Doc
from ..events.numbers import ONLY, PRESENT
from ..events.shared import Nested, Shared
from ..events.wire import U32, U64
from ..kernel import bpf
from ..kernel.maps import Map
from ..procfs import Procfs, procfs
from .timely_reader import TimelyReader

_log = logging.getLogger("krie")
PROGRAM = "process_running_now"
_ANSWERS, _NAMED = "process_running", "krie_named"
_LOOKED = 1
_BITS = {word: bit for bit, word in INFLUENCE.items()}
_LINKER = b"LD_"


@dataclass(frozen=True, slots=True)
class ProcessRunning(Shared):
    """What the program answers of a process."""

    C_NAME: ClassVar[str] = "process_running"
    start_time: U64
    file: Annotated[File, Nested(File), Doc("zeros: there is no such process, or it claims another executable since")]
    lost: Annotated[U32, Doc("bits of `Lost`")]
    looked: U32


@dataclass(frozen=True, slots=True)
class Running:
    """One process as the table has it."""

    identity: Identity
    """What it executed. `NOTHING`: a kernel thread, one that is gone, or one that claims another executable since."""
    influence: int
    """Bits of `INFLUENCE`."""
    looked: bool
    """Whether somebody looked for influence that only its environment shows."""


class Bindings:
    """Runs `process_running_now` of `bpf/binding.bpf.c`. Errors are `KernelError`."""

    def __init__(
        self,
        program: int,
        maps: Mapping[str, Map],
        run: Callable[[int, tuple[int, ...]], object] = bpf.test_run,
        proc: Procfs | None = None,
    ) -> None:
        """`program`: what `run` runs."""
        self._program, self._test_run, self._proc = program, run, proc or procfs()
        self._answer, self._named = maps[_ANSWERS], maps[_NAMED]
        self._reader = TimelyReader()

    def of(self, tgid: int, found: int = 0) -> Running:
        """What a process runs; noted now if it was not before.

        `found`: influence to add, with bit 1, which says that somebody looked.
        """
        answer = self._asked(tgid, found)
        file = answer.file
        return Running(Identity(file.dev, file.ino, file.generation), answer.lost, bool(answer.looked))

    def identity(self, tgid: int) -> Identity:
        """Which file a process executed."""
        return self.of(tgid).identity

    def start_time(self, tgid: int) -> int:
        """When a process started, ns; 0: there is no such process, or it is a kernel thread."""
        return self._asked(tgid).start_time

    def note_all(self) -> None:
        """Note what everybody runs. Again, until nobody is new: who is not noted yet hands nothing down."""
        seen: set[int] = set()
        while new := set(self._proc.tgids()) - seen:
            for tgid in new:
                self.of(tgid)
            seen |= new

    def look_at(self, files: Collection[Identity]) -> None:
        """Look more closely at what executes one of these files, which have a name or are protected from now on, and at
        the processes that did so already. Raises `KernelError`; then at no other files than before."""
        before = {key for key, _ in self._named.items()}
        try:
            for key in set(map(File.key, files)) - before:
                self._named.set(key, PRESENT)
            for tgid in self._proc.tgids() if files else ():
                running = self.of(tgid)
                if running.identity in files and not running.looked:
                    self.of(tgid, _LOOKED | self._influence(tgid))
        except KernelError:
            self._keep(before)
            raise

    def look_only_at(self, files: Iterable[Identity]) -> None:
        """No longer at others. Never raises: to look at one more costs a little time."""
        self._keep(set(map(File.key, files)))

    def _keep(self, wanted: Collection[bytes]) -> None:
        try:
            for key, _ in list(self._named.items()):
                if key not in wanted:
                    self._named.remove(key)
        except KernelError as error:
            _log.error("executables that have no name any more are still looked at: %s", error)

    def _asked(self, tgid: int, found: int = 0) -> ProcessRunning:
        self._test_run(self._program, (tgid, found))
        return ProcessRunning.decode(self._answer.get(ONLY))

    def _influence(self, tgid: int) -> int:
        """What /proc tells of a process: bits of `INFLUENCE`. What cannot be read counts as influence."""
        file = f"{tgid}/environ"  # for which the kernel locks the process's memory
        environment = self._reader.read(f"/proc/{file}", lambda: self._proc.read(file))
        try:
            status = self._proc.read(f"{tgid}/status")
        except OSError:
            return _BITS["environment"]
        if environment is None:
            return _BITS["environment"]
        linked = any(each.startswith(_LINKER) for each in environment.split(b"\0"))
        traced = any(line.startswith(b"TracerPid:") and line.split()[1] != b"0" for line in status.splitlines())
        return linked * _BITS["environment"] | traced * _BITS["traced"]
