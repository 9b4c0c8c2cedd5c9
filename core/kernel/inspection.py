"""What the kernel side sees of the agent itself: its own header, and which file an open descriptor is.

Read through the very C that fills every record, so that the agent's idea of a file agrees with the records' on any file
system, and a wrong read of any field shows before it can mislead.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import KernelError
from ..events.core_maps import Inspected
from ..events.event import Event
from ..events.identity import Identity
from ..events.layout import layout_of
from ..events.numbers import ONLY
from . import bpf
from .maps import Map

_HEADER = layout_of(Event)


class Inspector:
    """Runs `krie_inspect` of `bpf/prelude.bpf.c`."""

    def __init__(self, program: int, answer: Map, run: Callable[[int, tuple[int, ...]], object] = bpf.test_run) -> None:
        """`answer`: the map that the program writes to when `run` runs it."""
        self._program, self._answer, self._test_run = program, answer, run

    def agent(self) -> Event:
        """The header of a record of the agent's own.

        Raises `KernelError` when what was read from the agent's task is not what the kernel's own helpers say.
        """
        header, helpers = self._run(-1)
        read = (header.tgid << 32 | header.tid, header.gid << 32 | header.uid, header.comm)
        told = (helpers.tgid_tid, helpers.uid_gid, helpers.comm)
        if read != told:
            raise KernelError(f"reading the agent's own task: fields say {read}, the kernel says {told}")
        return header

    def identify(self, descriptor: int) -> Identity:
        """Which file an open descriptor of this process is."""
        file = self._run(descriptor)[1].file
        return Identity(file.dev, file.ino, file.generation)

    def holders(self, descriptor: int) -> int:
        """How many hold the map, by open files and pins, or the program, also by attaching it; 0 of any other."""
        return self._run(descriptor)[1].holders

    def _run(self, descriptor: int) -> tuple[Event, Inspected]:
        self._test_run(self._program, (descriptor & 0xFFFFFFFFFFFFFFFF,))
        raw = self._answer.get(ONLY) or b""
        return Event(*_HEADER.values(raw[: _HEADER.size])), Inspected.decode(raw[_HEADER.size :])
