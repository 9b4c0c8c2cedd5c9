"""The keeper: a process that holds the agent's probes too, so that they end only while that is safe.

A probe ends with its last holder. When the agent was killed, or has let go, the keeper looks at the kernel's switches
(see `krie.kernel.switches`) and lets go of some probes, until none is left. It waits for as long as a switch lies.

It also lets go of what the agent does not want any more, right behind a look: each removal waits for grace periods. Of
traps it removes the events, once their breakpoints have gone (see `krie.kernel.traps`).

It is started as a program of its own, and lives as long as the agent: it imports little.
"""

from __future__ import annotations

import array
import json
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from typing import NamedTuple

from ..errors import KernelError
from ..events.numbers import ONLY
from ..libc import libc
from . import bpf
from .detach import detach
from .mounts import cgroup2
from .switches import LIES, WAITS, Addresses, Places, Switches
from .traps import Traps, address_of

HOLD, CLOSE, END = b"h", b"c", b"e"
MESSAGE = struct.Struct("=ccIQ")
"""To the keeper: a command, and of a probe the kind, the slot and the address.

`HOLD` comes with a descriptor, which is held from then on. `CLOSE`: the agent does not hold that one any more; that of
`IDLE_SLOT` is answered by `IDLE_CLOSED`. `END`: the agent holds nothing any more. Answered by `DONE` when all has been
let go of, or by why it has not."""
DONE, IDLE_CLOSED = "done", "idle closed"
BREAKPOINT, TRAP, TRAMPOLINE, KEY = "k", "t", "f", "s"
"""Kinds. The address is a breakpoint's, 0 for a kprobe on ftrace; or that of the function that calls the trampoline; or
that of the static key that says that somebody is attached. Of a trap an event is to be removed, too."""
IDLE_SLOT = 0xFFFFFFFF
"""The slot of the kprobe at the idle function."""
IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What ends no process that holds probes; it is started with these blocked."""
_PR_SET_NAME = 15
_AT_ONCE = 16
"""Kprobes that are closed between two looks: each waits for grace periods. What trampolines and static keys leave
behind is worse, and these are closed one by one."""
_AGAIN_S = 1.0


class Held(NamedTuple):
    """A probe that is held."""

    slot: int
    kind: str
    address: int
    descriptor: int


def let_go(held: Iterable[Held], switches: Switches, state: int) -> None:
    """Close these in this process, of which the agent has gone, as soon as nothing of them stays behind.

    `state`: descriptor of the agent's state in BPF.
    """
    numbers = dict.fromkeys(("agent", "socket", "program", "answer", "tracefs", "debugfs", "kprobe_type"), -1)
    others = {"state": state, "answer_bytes": 0, "answer_at": 0, "secret": 0, "agent_tgid": 0}
    _Keeper({**numbers, **others}, Addresses(), held, switches).run_alone()


def places_of(held: Iterable[Held]) -> Places:
    """Where these should show in the kernel's text."""
    found: dict[str, set[int]] = {BREAKPOINT: set(), TRAMPOLINE: set(), KEY: set(), TRAP: set()}
    for each in held:
        found[each.kind].add(each.address)
    return Places(*(frozenset(each - {0}) for each in found.values()))


class _Keeper:
    def __init__(
        self,
        numbers: Mapping[str, int],
        addresses: Addresses,
        held: Iterable[Held],
        switches: Switches | None = None,
    ) -> None:
        self._agent, self._state = numbers["agent"], numbers["state"]
        self._peek, self._answer, self._answer_bytes = numbers["program"], numbers["answer"], numbers["answer_bytes"]
        self._answer_at = numbers["answer_at"]
        self._secret = numbers["secret"]
        # None where there is no agent: this takes no descriptor, of which there may be none left.
        self._socket = socket.socket(fileno=numbers["socket"]) if numbers["socket"] >= 0 else None
        self._held = {each.slot: each for each in held}
        self._leaving: list[Held] = []
        self._fresh = False
        text = range(addresses.text, addresses.text_end)
        self._traps = Traps(numbers["tracefs"], numbers["agent_tgid"], self._read, text)
        self._left = set(self._traps.of_the_dead())
        idle = self._held.pop(IDLE_SLOT, None)
        self._switches = switches or Switches(
            self._read, numbers["debugfs"], addresses, numbers["kprobe_type"], -1 if idle is None else idle.descriptor
        )

    def run(self) -> None:
        """Hold, until the agent has gone."""
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._agent, select.POLLIN)  # readable when it is dead, and its descriptors are closed
        asked = False
        while not asked:
            ready = {each for each, _ in poll.poll(self._waits_ms())}
            if self._socket.fileno() in ready:  # first: what it sent and died holds probes, too
                with suppress(ConnectionResetError):  # once, where an answer was not read any more
                    data, ancillary, *_ = self._socket.recvmsg(
                        MESSAGE.size, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
                    )
                    if data:
                        asked = not self._serve(data, ancillary)
                    else:
                        poll.unregister(self._socket)  # the agent is about to die
            elif self._agent in ready:
                break
            else:
                self._leave()
        self._let_go(asked)

    def run_alone(self) -> None:
        """Let go of all, where the agent has gone."""
        self._let_go(asked=False)

    def _waits_ms(self) -> float | None:
        if self._fresh:
            return 0  # all that was closed at once leaves at once
        return _AGAIN_S * 1000 if self._leaving or self._left else None

    def _serve(self, data: bytes, ancillary: list[tuple[int, int, bytes]]) -> bool:
        command, kind, slot, address = MESSAGE.unpack(data)
        if command == END:
            return False
        new = next((array.array("i", payload)[0] for _, _, payload in ancillary), -1)
        if command == HOLD and new < 0:  # there is no place for one: somebody lowered the limit of descriptors
            kernel_log(f"a probe at {address:#x} ends with the agent: its keeper can open nothing")
            return True
        if slot == IDLE_SLOT:
            old, self._switches.idle = self._switches.idle, new
            if old >= 0:
                os.close(old)
            if command == CLOSE:
                self._tell(IDLE_CLOSED.encode())
        elif command == HOLD:
            self._held[slot] = Held(slot, kind.decode(), address, new)
        else:
            self._fresh = True
            self._leaving += [self._held.pop(slot)] if slot in self._held else []
        return True

    def _leave(self) -> None:
        """Let go of what the agent does not want any more, one by one, each right behind a look at the switches.

        Each takes a while, and the agent waits for no answer longer than it has to.
        """
        self._fresh = False
        for held in tuple(self._leaving):
            if self._is_asked():
                return
            if self._agrees(held):
                self._leaving.remove(held)
                os.close(held.descriptor)
                self._left |= {self._traps.name(held.address)} if held.kind == TRAP else set()
        for name in tuple(self._left):
            if self._is_asked():
                return
            if not self._remove(name):
                self._left.remove(name)

    def _is_asked(self) -> bool:
        poll = select.poll()
        if self._socket is not None:
            poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def _remove(self, name: str) -> str:
        try:
            return self._traps.remove(name)
        except Exception as error:  # as above
            return f"{type(error).__name__}: {error}"

    def _agrees(self, held: Held) -> bool:
        try:
            return self._switches.agree(places_of([held]))
        except Exception:  # whatever is wrong, it is not known to be safe
            return False

    def _let_go(self, asked: bool) -> None:
        try:
            bpf.update(self._state, ONLY, bytes(8))  # nobody follows what programs would do now
        except KernelError as error:
            kernel_log(f"the programs of an agent that has gone are still armed: {error}")
        told = ""
        while why := self._try():
            if why != told:
                told = why
                kernel_log(f"probes stay until they can be removed: {why}")
                leave_service()
            if asked:
                self._tell(why.encode(), last=True)
                asked = False
            time.sleep(_AGAIN_S)
        if asked:
            self._tell(DONE.encode())

    def _try(self) -> str:
        try:
            return self._what_keeps()
        except Exception as error:  # this process may not end with all that it holds, whatever is wrong
            return f"{type(error).__name__}: {error}"

    def _tell(self, data: bytes, *, last: bool = False) -> None:
        assert self._socket is not None
        with suppress(OSError):  # the agent may have been killed meanwhile
            self._socket.send(data)
        if last:
            self._socket.close()

    def _what_keeps(self) -> str:
        """Close what can be closed; empty when that was all."""
        self._held.update({each.slot: each for each in self._leaving})
        self._leaving, self._left = [], set()
        while self._held:
            if why := self._look():
                return why
            some = [each for each in self._held.values() if each.kind in (BREAKPOINT, TRAP)][:_AT_ONCE]
            if not some:
                some = list(self._held.values())[:1]
                if not self._agrees(some[0]):
                    continue  # it was written while all others were looked at
            for each in some:
                del self._held[each.slot]
            detach(each.descriptor for each in some)
        if why := self._remove_traps():
            return why
        if self._switches.idle >= 0:
            if why := self._look():
                return why
            if self._switches.filter_may_empty():
                return "the kernel counts other kprobes on ftrace than it lists; without any it may trace all functions"
        self._close_idle()
        return ""

    def _remove_traps(self) -> str:
        """Why some stay; empty where none does."""
        left = self._traps.own()
        if left and (why := self._look(map(address_of, left))):
            return why
        return next(filter(None, [self._remove(each) for each in left]), "")

    def _look(self, breakpoints: Iterable[int] = ()) -> str:
        """Why the kernel would leave something of ours behind; empty where it would not."""
        places = places_of((*self._held.values(), *(Held(0, TRAP, each, -1) for each in breakpoints)))
        found, why = self._switches.look(places, self._close_idle)
        return why if found in (LIES, WAITS) else ""

    def _close_idle(self) -> None:
        if self._switches.idle >= 0:
            os.close(self._switches.idle)
            self._switches.idle = -1

    def _read(self, address: int, count: int) -> bytes:
        bpf.test_run(self._peek, (address, count), self._secret)
        raw = bpf.lookup(self._answer, ONLY, self._answer_bytes) or bytes(self._answer_bytes)
        if any(raw[: self._answer_at]):
            raise KernelError(f"reading kernel memory at {address:#x}")
        return raw[self._answer_at : self._answer_at + count]


def kernel_log(text: str) -> None:
    """Tell it where nobody else listens any more."""
    with suppress(OSError), open("/dev/kmsg", "w") as log:
        log.write(f"<3>krie: {text}\n")


def leave_service() -> None:
    """Move to the root of the cgroup tree: what stops or kills the agent's service would end this process."""
    with suppress(OSError):
        if (tree := cgroup2()) is not None:
            with closing(tree):
                tree.write("cgroup.procs", f"{os.getpid()}\n".encode())


def main(given: str) -> None:
    """Run one. `given`: what `krie.kernel.keeping` passes on."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    libc.prctl(_PR_SET_NAME, b"krie-keeper")
    values = json.loads(given)
    held = [Held(*each) for each in values["held"]]
    _Keeper(values["numbers"], Addresses(*values["addresses"]), held).run()
