"""Traps: kprobes inside functions that leave no harm behind, whatever is written to the kernel's memory meanwhile.

A kprobe that is unregistered while the kernel wrongly believes that it is disarmed leaves its breakpoint without an
owner, and the next CPU that comes by panics (see `krie.kernel.switches`). No look before the removal is near enough to
it. So a trap is an event of tracefs: closing its perf event only disables the kprobe. A breakpoint that stays has an
owner then, and does nothing. It is taken out later, and only where the text shows that it has gone the kprobe is
unregistered, which never touches the text of a disabled one (kernel/kprobes.c, __disable_kprobe(),
__unregister_kprobe_top()). While a trap is attached the kernel refuses to remove its event, to everybody.

This holds for breakpoints, not for the jumps that the kernel's optimizer puts in their places later, some of them over
their neighbours. So traps stand only at instructions that no such jump can cover: those that cannot be executed
elsewhere with a jump back behind them, as calls, jumps and branches (can_boost() in arch/x86/kernel/kprobes/core.c). A
kprobe at one, and any before it that would reach it, stays a breakpoint (copy_optimized_instructions()).

The optimizer's own jumps, which other tracers' kprobes became, are none of these instructions: what lies below them is
no call or jump. A trap there shares that kprobe, and becomes its last owner when the tracer ends. They lead out of the
kernel's text, which tells them from its own jumps.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress

from ..errors import KernelError
from ..kernel_files import KernelFile
from ..procfs import Procfs, procfs
from .perf_event import TRACEPOINT, perf_event

Read = Callable[[int, int], bytes]
"""Bytes of the kernel's memory, by address and size. Raises `KernelError`."""
_EVENTS, _GROUP, _NAME = "kprobe_events", "krie_", "at_"
_BREAKPOINT, _JUMP, _JUMP_BYTES = b"\xcc", b"\xe9", 5
_NEVER_BOOSTED = frozenset((*range(0x70, 0x80), *range(0xE0, 0xE4), 0xE8, 0xE9, 0xEB))
"""Branches, loops, the call, and both jumps. Prefixes are left out: no trap is put where an instruction has one."""
_TWO_BYTES, _BRANCHES = 0x0F, range(0x80, 0x90)
_FIRST_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO
_KEEPER = "krie-keeper"


def suits(text: bytes, offset: int) -> bool:
    """Whether an instruction that begins there, if one does, is one that no jump of the kernel's optimizer covers."""
    first, second = text[offset], text[offset + 1 : offset + 2]
    return first in _NEVER_BOOSTED or (first == _TWO_BYTES and bool(second) and second[0] in _BRANCHES)


class Traps:
    """Those of one agent."""

    def __init__(self, tracefs: int, agent: int, read: Read, text: range) -> None:
        """`tracefs`: descriptor of its root, -1 where there is none; `agent`: its tgid, after which they are named;
        `text`: addresses of the kernel's own."""
        self._tracefs, self._read, self._text = tracefs, read, text
        self._group = f"{_GROUP}{agent}"

    def name(self, address: int) -> str:
        """Of the event at an address, as tracefs has it."""
        return f"{self._group}/{_NAME}{address:x}"

    def places(self, code: range) -> list[int]:
        """Offsets in a function at which instructions may begin that suit a trap. Raises `KernelError`.

        Not where kprobes have changed its text: a jump of the optimizer covers the bytes behind it, too, and some of it
        stays behind a breakpoint that is written over it. None of the breakpoints of this agent's traps ever was one.
        """
        text = self._read(code.start, len(code))
        own = {address_of(each) - code.start for each in self.own()}
        kprobes = [each for each in range(len(text)) if each not in own and self._is_kprobe(text, each, code.start)]
        changed = {each + behind for each in kprobes for behind in range(_JUMP_BYTES)}
        return [each for each in range(len(text)) if each not in changed and suits(text, each)]

    def attach(self, address: int, program: int) -> int:
        """Attach a loaded program at an instruction; returns what holds it. Raises `OSError`.

        EILSEQ and EINVAL where the kernel takes no kprobe there, EEXIST where one of ours has not been removed yet.
        """
        name = self.name(address)
        self._write(_EVENTS, f"p:{name} {address:#x}\n")
        try:
            return self._open(name, program)
        except OSError:
            self.remove(name)  # it was armed, where only the program was refused
            raise

    def own(self) -> list[str]:
        """Names of all of this agent's events, attached or not."""
        return list(self._names(self._group))

    def of_the_dead(self) -> list[str]:
        """Names of events that agents left behind which have gone together with their keepers."""
        try:
            groups = [each for each in self._folder("events") if each.removeprefix(_GROUP).isdecimal()]
            gone = [each for each in groups if each != self._group and not procfs().has(int(each[len(_GROUP) :]))]
            # Elsewhere nobody knows who lives; and a keeper that does may be about to remove them.
            if not gone or KernelFile("/proc/self/ns/pid").link() != f"pid:[{_FIRST_PID_NAMESPACE}]" or _others_keep():
                return []
        except OSError:
            return []
        return [name for group in gone for name in self._names(group)]

    def remove(self, name: str) -> str:
        """Remove the event of a trap that was closed; returns why it has to stay, empty where it has gone.

        Where its breakpoint stays, or a jump, it is armed and disarmed once more. That does nothing while kprobes are
        said to be off: put that right before. A jump goes some moments later. Where a trap of this agent came to stand
        at the place of a dead one's, the breakpoint has an owner, who is removed by these same rules; the kernel only
        takes the other one off its list (kernel/kprobes.c, __unregister_kprobe_top()).
        """
        try:
            if not self._has_successor(name):
                if self._breaks(name):
                    os.close(self._open(name))
                if self._breaks(name):
                    return f"a breakpoint or its jump is still at {address_of(name):#x}"
            self._write(_EVENTS, f"-:{name}\n")
        except OSError as error:
            # ENOENT: somebody else removed it.
            return "" if error.errno == errno.ENOENT else f"{name}: {error.strerror}"
        except KernelError as error:
            return str(error)
        return ""

    def _has_successor(self, name: str) -> bool:
        own = self.name(address_of(name))
        return own != name and own in self.own()

    def _breaks(self, name: str) -> bool:
        address = address_of(name)
        return self._is_kprobe(self._read(address, _JUMP_BYTES), 0, address)

    def _is_kprobe(self, text: bytes, offset: int, begin: int) -> bool:
        """Whether a kprobe's breakpoint stands there, or the jump that the optimizer puts in its place."""
        first, *rest = text[offset : offset + _JUMP_BYTES]
        to = begin + offset + _JUMP_BYTES + int.from_bytes(bytes(rest), "little", signed=True)
        return first == _BREAKPOINT[0] or (first == _JUMP[0] and (len(rest) < _JUMP_BYTES - 1 or to not in self._text))

    def _open(self, name: str, program: int = -1) -> int:
        file = os.open(f"events/{name}/id", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._tracefs)
        try:
            identity = int(os.read(file, 32))
        finally:
            os.close(file)
        return perf_event(TRACEPOINT, identity, period=1, program=program)

    def _names(self, group: str) -> Iterator[str]:
        with suppress(OSError):  # it has none
            for each in self._folder(f"events/{group}"):
                if each.startswith(_NAME):  # beside the files `enable` and `filter`
                    yield f"{group}/{each}"

    def _folder(self, name: str) -> list[str]:
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._tracefs)
        try:
            return os.listdir(folder)
        finally:
            os.close(folder)

    def _write(self, name: str, text: str) -> None:
        """Append: truncating the file would remove everybody's events."""
        file = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, dir_fd=self._tracefs)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)


def address_of(name: str) -> int:
    """Where the kprobe of an event of ours is."""
    return int(name.rpartition("/")[2].removeprefix(_NAME), 16)


def _others_keep(proc: Procfs | None = None) -> bool:
    """Whether a keeper lives besides this process, if it is one: only one at a time may arm what is left behind.

    Anybody may call his process so, and lock its memory, so that /proc/TGID/cmdline gives no answer.
    """
    proc = proc or procfs()
    for each in proc.tgids():
        with suppress(OSError, KeyError):
            lines = proc.read(f"{each}/status").splitlines()
            told = {name: value for name, _, value in (line.partition(b":\t") for line in lines)}
            is_roots = told[b"Uid"].startswith(b"0\t0\t")
            is_one = told[b"Name"] == _KEEPER.encode() and is_roots and told[b"State"][:1] not in b"ZX"
            if is_one and each != os.getpid():
                return True
    return False
