"""What the loader has attached and no keeper holds yet: it ends only while that is safe, whoever dies meanwhile.

Until the agent says that its keeper holds them, this process does: from the first attachment on no signal but SIGKILL
ends it, and it survives the agent. What ended while ftrace is off would end ftrace for good (see
`krie.kernel.switches`). Where this process is killed, the agent still holds them: see `krie.loader.second`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from ..errors import SwitchedOffError
from ..kernel.attach import kprobe_type
from ..kernel.keeper import IGNORED, Held, kernel_log, leave_service, let_go, places_of
from ..kernel.memory import open_memory
from ..kernel.program import Program
from ..kernel.standing import Standing, place_of
from ..kernel.switches import Addresses, Switches
from ..libc import libc
from ..roots import open_debugfs

_PR_SET_PDEATHSIG = 1
_AGAIN_S = 1.0


class Holding:
    """Attached programs of one loader."""

    def __init__(self, places: Sequence[int], state: int) -> None:
        """Look at nothing yet. `places`: those of `Addresses`; `state`: descriptor of the agent's state in BPF."""
        self._state = state
        self._switches = _open_switches(places)
        self._standing: Standing = {}
        self._held: list[tuple[Program, int]] = []
        self._unwanted: list[tuple[Program, int]] = []

    def begin(self, standing: Standing) -> None:
        """Right before the first program is attached: from here on only what is told ends this process.

        `standing`: what each program changes. It is not looked up at the end: then the kernel may hide its symbols, and
        this process may open no file. Raises `SwitchedOffError` where nothing should be attached: compiling and loading
        took long since the agent looked.
        """
        if why := self._switches.why_not_attach():
            raise SwitchedOffError("attaching probes", hint=why)
        for each in IGNORED:
            signal.signal(each, signal.SIG_IGN)
        libc.prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)
        self._standing = standing

    def note(self, program: Program, links: Iterable[int]) -> tuple[str, int] | None:
        """These links attach the program; returns what that changed, None where nothing is to be held."""
        self._held += [(program, each) for each in links]
        return self._standing.get(place_of(program))

    def can_release(self, program: Program, links: Iterable[int]) -> bool:
        """Whether to close these would do no harm now."""
        return self._switches.agree(places_of(self._described((program, each) for each in links)))

    def release(self, program: Program, links: Sequence[int]) -> None:
        """Close what is not wanted after all, now or, where that would do harm, at this process's end."""
        self._held = [each for each in self._held if each[1] not in links]
        if self.can_release(program, links):
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
            leave_service()  # which may end as soon as the agent has: the first look may come too late
            let_go(self._described(left), self._switches, self._state)

    def _described(self, links: Iterable[tuple[Program, int]]) -> list[Held]:
        """As a keeper knows them. What changes neither the kernel's text nor a key ends with this process."""
        return [
            Held(slot, *self._standing[place_of(program)], descriptor)
            for slot, (program, descriptor) in enumerate(links)
            if place_of(program) in self._standing
        ]


def let_go_safely(held: Iterable[Held], places: Sequence[int], state: int) -> None:
    """End what this process alone holds, as soon as that does no harm; arguments as for `Holding`."""
    told = ""
    while True:
        try:
            switches = _open_switches(places)
        except Exception as error:  # this process may not end with all that it holds, whatever is wrong
            if (why := f"{type(error).__name__}: {error}") != told:
                told = why
                kernel_log(f"probes stay until it can be seen whether they can be removed: {why}")
                leave_service()
            time.sleep(_AGAIN_S)
        else:
            let_go(held, switches, state)
            return


def _open_switches(places: Sequence[int]) -> Switches:
    with ExitStack() as opened:
        memory, _ = open_memory(opened)
        if (debugfs := open_debugfs()) >= 0:
            opened.callback(os.close, debugfs)
        switches = Switches(memory.read, debugfs, Addresses(*places), kprobe_type())
        opened.pop_all()  # for as long as this process lives
    return switches
