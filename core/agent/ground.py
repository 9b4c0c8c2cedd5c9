"""The kernel's text under the agent's probes: none is moved or removed while something of it would stay behind there.

See `krie.kernel.switches` for why it would, and `krie.kernel.traps` for why traps can be moved all the same. What
remains, of kprobes at functions' begins and of trampolines: a write to a variable between the last look and the
removal, and a SIGKILL of agent and keeper at once before it is put right, which takes a second.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import count
from typing import NamedTuple

from ..events.core_maps import Peeked
from ..events.enforcement import Guarded
from ..events.event import Event
from ..kernel.attach import kprobe_type
from ..kernel.dispatch import FUNCTION as DISPATCHER
from ..kernel.keeper import BREAKPOINT, IDLE_SLOT, TRAP, Held, places_of
from ..kernel.keeping import Keeper
from ..kernel.maps import Maps
from ..kernel.memory import KernelMemory
from ..kernel.program import AttachType, Program
from ..kernel.standing import Standing, place_of
from ..kernel.switches import IDLE, LIES, RIGHTED, TEXT, VARIABLES, WAITS, Addresses, Switches
from ..kernel.traps import Traps
from ..loader.launcher import LoadedSet
from ..plugin.probe import Sensor
from ..roots import open_debugfs, open_tracefs

SYMBOLS = frozenset({*VARIABLES, *IDLE, *TEXT})
"""Whose addresses `open_switches` needs."""
_AGAIN_S = 1.0
_log = logging.getLogger("krie")


class Ground:
    """All probes of one agent that change the kernel's text, and the keeper that holds them too."""

    def __init__(self, switches: Switches, traps: Traps, new_keeper: Callable[[Iterable[Held]], Keeper]) -> None:
        """Start no keeper yet, and hold nothing but the kprobe at the idle function. `traps`: this agent's."""
        self._switches, self._traps, self._new_keeper = switches, traps, new_keeper
        self._held: dict[int, Held] = {}
        self._waiting: list[int] = []
        self._left: set[str] = set()
        self._slots = count()
        self._keeper: Keeper | None = None
        self._started = self._off = False
        self._told = ""
        self._news: list[tuple[type[Event], dict[str, object]]] = []
        self._open_idle()

    def start(self) -> None:
        """Have a keeper from now on, if there is something to keep. Nothing happens where it was started before."""
        if self._started or not self._held:
            return
        self._started = True
        self._restart_keeper()

    def hold(self, descriptor: int, address: int, kind: str = BREAKPOINT) -> None:
        """A probe was attached: see `krie.kernel.keeper` for kinds and their addresses. Once for each is enough."""
        if descriptor in self._held:
            return
        held = self._held[descriptor] = Held(next(self._slots), kind, address, descriptor)
        self._ask_keeper(lambda keeper: keeper.hold(held))

    def release(self, descriptor: int) -> None:
        """Close a probe that was held, now or as soon as that is safe; anything else now."""
        if descriptor not in self._held:
            os.close(descriptor)
            return
        if self.obstacle() or (self._keeper is not None and not self._keeper.lives()):
            self._waiting.append(descriptor)
            return
        held = self._held.pop(descriptor)
        os.close(descriptor)
        if self._keeper is not None:
            self._ask_keeper(lambda keeper: keeper.close(held.slot))  # it is the last to hold it, and does the rest
        elif held.kind == TRAP:
            self._left.add(self._traps.name(held.address))

    def replace(self, descriptor: int, new: int) -> None:
        """A probe was attached again: from here on `descriptor` holds what `new` does, which is closed. What it held
        before is released. Raises `OSError`; then nothing has changed, and `new` is open.
        """
        before = os.dup(descriptor)
        held = self._held.pop(descriptor, None)
        os.dup2(new, descriptor, inheritable=False)
        os.close(new)
        if held is not None:
            self._held[before] = held._replace(descriptor=before)
            self.hold(descriptor, held.address, held.kind)
        self.release(before)

    def obstacle(self) -> str:
        """Why probes must stay where they are; empty where they need not."""
        found, why = self._switches.look(places_of(self._held.values()), self._close_idle)
        if found == RIGHTED:
            self._told = ""
            self._tell("a switch of kprobes or ftrace was turned off in memory while they were on; it is put right")
        elif found == LIES:
            if why != self._told:
                self._told = why
                self._tell(
                    "a switch of kprobes or ftrace was turned off in memory while they are on, and cannot be put right "
                    f"({why}): no probe is moved or removed, and no tracer should end; restart this machine"
                )
            return f"the kernel would leave breakpoints and calls behind: {why}"
        elif found == WAITS:
            if why != self._told:
                self._told = why
                _log.error("no probe is moved or removed while ftrace is off: it would stop for good (%s)", why)
            return f"ftrace would stop for good: {why}"
        self._told = ""
        return ""

    def turned_off(self) -> bool:
        """Whether a switch is off, and none was when this was last asked."""
        before, self._off = self._off, self._switches.any_off()
        return self._off and not before

    def tick(self) -> list[tuple[type[Event], dict[str, object]]]:
        """Once a second: put the switch right, look after the keeper; returns what happened since the last time."""
        if not self.obstacle():
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                self.release(each)
            self._left = {each for each in self._left if self._traps.remove(each)}
            self._open_idle()
        if self._started and not self._keeper_lives():
            _log.error("the process that keeps probes has gone; another one is started")
            self._restart_keeper()
        news, self._news = self._news, []
        return news

    def settle(self) -> None:
        """Before the end: put the switch right or, where nobody would hold the kprobes any longer, wait until it is."""
        why = self.obstacle()
        if self._started and not self._keeper_lives():
            self._restart_keeper()
        while why and self._keeper is None:
            time.sleep(_AGAIN_S)
            why = self.obstacle()

    def end(self) -> None:
        """Let go of the last. Whoever attached the others has closed them, and only the keeper holds them now."""
        for each in (*self._waiting, *([self._switches.idle] if self._switches.idle >= 0 else ())):
            os.close(each)
        self._waiting, self._switches.idle = [], -1
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            for name in self._traps.own():
                if why := self._traps.remove(name):
                    _log.error("a kprobe that is disabled stays in tracefs (%s): %s", name, why)
            return
        try:
            why = keeper.end()
        except OSError as error:
            _log.error("the process that keeps probes did not answer (%s)", error)
            return
        if why:
            _log.error("process %d keeps the probes until they can be removed: %s", keeper.tgid, why)

    def _tell(self, text: str) -> None:
        _log.error("%s", text)
        fields = {"stranger_tgid": 0, "stranger_start_time": 0, "count": 1, "attempt": "probes_forged"}
        self._news.append((Guarded, dict(fields)))

    def _open_idle(self) -> None:
        """Not while something is off.

        Without kprobes it would not get into their filter. Without ftrace nobody is called, not even where an entry for
        the idle function has to stay in that filter (see `krie.kernel.switches`): closing this one would remove it.
        """
        if self._switches.idle >= 0 or self._switches.any_off() or self._switches.idle_is_called():
            return
        self._switches.idle = self._switches.open_idle()
        if self._switches.idle >= 0:
            self._ask_keeper(lambda keeper: keeper.hold(Held(IDLE_SLOT, BREAKPOINT, 0, self._switches.idle)))

    def _close_idle(self) -> None:
        self._ask_keeper(lambda keeper: keeper.close_idle())
        idle, self._switches.idle = self._switches.idle, -1
        if idle >= 0:
            os.close(idle)

    def _restart_keeper(self) -> None:
        idle = [Held(IDLE_SLOT, BREAKPOINT, 0, self._switches.idle)] if self._switches.idle >= 0 else []
        self._keeper = None
        try:
            self._keeper = self._new_keeper((*self._held.values(), *idle))
        except OSError as error:
            _log.error("nobody keeps probes if this agent is killed: %s", error)

    def _keeper_lives(self) -> bool:
        return self._keeper is not None and self._keeper.lives()

    def _ask_keeper(self, ask: Callable[[Keeper], None]) -> None:
        if self._keeper is not None:
            with suppress(OSError):  # it has gone, as the next tick finds
                ask(self._keeper)


class Seen(NamedTuple):
    """The kernel's switches, and by what they are seen."""

    switches: Switches
    addresses: Addresses
    debugfs: int
    tracefs: int
    """Descriptors of the roots; -1 where there is none."""


def open_switches(memory: KernelMemory, found: Mapping[str, Sequence[int]], stack: ExitStack) -> Seen:
    """Look at nothing yet. `found`: addresses of `SYMBOLS`; `stack` lets go of debugfs and tracefs."""
    debugfs, tracefs = open_debugfs(), open_tracefs()
    for each in (debugfs, tracefs):
        if each >= 0:
            stack.callback(os.close, each)
    address = {name: each[0] for name, each in found.items() if len(each) == 1}
    idle, waited, *_ = (*(address[each] for each in IDLE if address.get(each)), 0, 0)
    text, text_end = (address.get(each, 0) for each in TEXT)
    variables = {each: address.get(each, 0) for each in VARIABLES}
    places = Addresses(**variables, idle=idle, waited=waited, text=text, text_end=text_end)
    return Seen(Switches(memory.read, debugfs, places, kprobe_type()), places, debugfs, tracefs)


def new_ground(
    loaded: LoadedSet, maps: Maps, memory: KernelMemory, seen: Seen, agent: int, secret: int
) -> tuple[Ground, Traps]:
    """How this kernel takes kprobes out of its text, and who keeps them.

    `agent`: its tgid; `secret`: see `krie.kernel.bpf.test_run`.
    """
    answer = maps["krie_peeked"]
    numbers = {
        "program": loaded.descriptors["program:krie_peek"][0],
        "secret": secret,
        "answer": answer.descriptor,
        "answer_bytes": answer.value_bytes,
        "answer_at": Peeked.layout().offset("memory"),
        "state": maps["krie_agent"].descriptor,
        "agent_tgid": agent,
        "debugfs": seen.debugfs,
        "tracefs": seen.tracefs,
        "kprobe_type": kprobe_type(),
    }
    traps = Traps(seen.tracefs, agent, memory.read, range(seen.addresses.text, seen.addresses.text_end))
    return Ground(seen.switches, traps, partial(Keeper, numbers, seen.addresses)), traps


def standing_probes(sensors: Iterable[Sensor], loaded: LoadedSet, standing: Standing) -> Iterator[tuple[int, int, str]]:
    """What holds the probes that change the kernel's text and do not roam: see `Ground.hold`.

    `standing`: what programs change where they are attached.
    """
    attached = (each for each in _chosen(sensors, loaded) if each.label in loaded.loaded.attached)
    for each in dict.fromkeys(attached):
        if (found := standing.get(place_of(each))) is None:
            continue
        kind, address = found
        names = [f"link:{each.label}"]
        if each.attach is AttachType.SYSCALL:
            # The entry of all system calls is that of programs that go on to these.
            names = [name for name in loaded.descriptors if name.startswith(f"link:{DISPATCHER}")]
        yield from ((link, address, kind) for name in names for link in loaded.descriptors.get(name, ()))


def _chosen(sensors: Iterable[Sensor], loaded: LoadedSet) -> Iterator[Program]:
    """The programs of the alternatives in use: two ways of attaching one function have programs of one label."""
    for sensor in sensors:
        for probe in sensor.probes:
            name = loaded.loaded.chosen.get(f"{sensor.name}.{probe.name}")
            for each in probe.alternatives:
                yield from each.programs if each.name == name else ()


def programs_of(sensors: Iterable[Sensor]) -> Iterator[Program]:
    """All programs of all alternatives."""
    for sensor in sensors:
        for probe in sensor.probes:
            for each in probe.alternatives:
                yield from each.programs
