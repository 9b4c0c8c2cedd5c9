"""What the loader has attached and no keeper holds yet: it ends only while that is safe, whoever dies meanwhile.

Until the agent says that its keeper holds them, this process is who does: from the first attachment on no signal but
SIGKILL ends it, and it survives the agent. What ended while ftrace is off would end ftrace for good (see
`krie.kernel.switches`).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from ..errors import SwitchedOffError
from ..kernel.attach import kprobe_type
from ..kernel.keeper import Held, let_go, places_of
from ..kernel.libc import libc
from ..kernel.memory import open_memory
from ..kernel.program import Program
from ..kernel.roots import open_debugfs
from ..kernel.standing import changes
from ..kernel.static_keys import key_addresses, symbols_of
from ..kernel.switches import Addresses, Switches
from ..kernel.symbols import addresses, read_once

_PR_SET_PDEATHSIG = 1


class Holding:
    """Attached programs of one loader."""

    def __init__(self, places: Sequence[int], state: int) -> None:
        """Look at nothing yet. `places`: those of `Addresses`; `state`: descriptor of the agent's state in BPF."""
        self._state = state
        self._debugfs = open_debugfs()
        memory, _ = open_memory(ExitStack())  # for as long as this process lives
        self._read, self._places, self._kprobes = memory.read, Addresses(*places), kprobe_type()
        self._switches = Switches(self._read, self._debugfs, self._places, self._kprobes)
        self._held: list[tuple[Program, int]] = []
        self._unwanted: list[tuple[Program, int]] = []

    def begin(self) -> None:
        """Right before the first program is attached: from here on only what is told ends this process.

        Raises `SwitchedOffError` where nothing should be attached: compiling and loading took long since the agent
        looked.
        """
        if why := self._switches.why_not_attach():
            raise SwitchedOffError("attaching probes", hint=why)
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        libc.prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)

    def note(self, program: Program, links: Iterable[int]) -> None:
        """These links attach the program."""
        self._held += [(program, each) for each in links]

    def release(self, program: Program, links: Sequence[int]) -> None:
        """Close what is not wanted after all, now or, where that would do harm, at this process's end."""
        self._held = [each for each in self._held if each[1] not in links]
        if self._switches.agree(places_of(_described((program, each) for each in links))):
            for each in links:
                os.close(each)
        else:
            self._unwanted += [(program, each) for each in links]

    def kept(self) -> None:
        """The agent's keeper holds all of them, but for what was not wanted."""
        for _, each in self._held:
            os.close(each)
        self._held.clear()

    def let_go(self) -> None:
        """At the end of this process: close what nobody else keeps, as soon as that does no harm."""
        left, self._held, self._unwanted = [*self._held, *self._unwanted], [], []
        if left:
            let_go(_described(left), self._switches, self._state)


@read_once()
def _described(links: Iterable[tuple[Program, int]]) -> list[Held]:
    """As a keeper knows them. What changes neither the kernel's text nor a key ends with this process."""
    all_ = list(links)
    programs = {program for program, _ in all_}
    found = changes(programs, key_addresses(programs, addresses(symbols_of(programs))))
    return [
        Held(slot, *found[program], descriptor) for slot, (program, descriptor) in enumerate(all_) if program in found
    ]
