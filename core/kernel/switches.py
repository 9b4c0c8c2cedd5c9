"""What the kernel believes of kprobes and ftrace, compared with its text: before anything is removed from that text.

While `kprobes_all_disarmed` is set, unregister_kprobe() leaves the text alone (kernel/kprobes.c, __disable_kprobe()),
and so does ftrace_shutdown() while `ftrace_enabled` is 0 (kernel/trace/ftrace.c). After an honest switching off,
nothing is left to take out. Where only the variable was written, in memory, a breakpoint stays without an owner, or a
call of a trampoline that is freed: the next CPU that comes by panics. Of static keys: see
`krie.kernel.static_keys`.

While ftrace is honestly off, nothing that is on it may end either: the kernel keeps flags of a function whose last user
leaves meanwhile (ftrace_check_record() skips what is not enabled), finds them when the last user of all leaves, once
ftrace is on again (the end of ftrace_shutdown()), takes them for a bug of its own, and turns ftrace off until reboot.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from ..errors import KernelError
from ..kernel_files import KernelFile
from .perf_event import PerfEventAttr, perf_event_open
from .static_keys import StaticKeys

ARMED, OFF, RIGHTED, LIES, WAITS = "armed", "off", "put right", "lies", "waits"
"""What `Switches.look` finds: all is on; kprobes are off, and the text agrees; something was off only by its variable,
and was put right; or could not be; ftrace is off, the text agrees, and nothing may end before it is on."""
SWITCH, _LIST = "kprobes/enabled", "kprobes/list"
FTRACE_SWITCH = KernelFile("/proc/sys/kernel/ftrace_enabled")
IDLE = ("orderly_reboot", "kernel_halt", "orderly_poweroff", "kernel_power_off")
"""Functions that run at most once in a kernel's life."""
TEXT = ("_stext", "_etext")
VARIABLES = ("kprobes_all_disarmed", "kprobe_ftrace_enabled", "ftrace_enabled", "ftrace_disabled")
_BREAKPOINT, _JUMP, _CALL = 0xCC, 0xE9, 0xE8
_BEFORE_A_CALL = tuple(map(bytes.fromhex, ("f30f1efa", "660f1f00", "0f1f40d6")))
"""An endbr, or what the kernel puts in its place where nothing needs one (ed53a0d97192)."""
_AGAIN_S = 1.0
_LOOKS = 2
"""How often a start waits for a switch that is off: an earlier agent's keeper puts forged ones right in a second."""
_SURE = 3
"""How often a variable has to disagree with the text, each time behind the kernel's mutex, until that is a forgery: who
turns a switch off, on and off again within one such look is not one."""
FTRACE_IS_OFF = f"kernel.ftrace_enabled is 0; write 1 to {FTRACE_SWITCH}"
_FTRACE_IS_DISABLED = "ftrace_disabled is set, and ftrace changes nothing any more"


class Addresses(NamedTuple):
    """Where the kernel keeps what is looked at; 0 where that is not known."""

    kprobes_all_disarmed: int = 0
    kprobe_ftrace_enabled: int = 0
    ftrace_enabled: int = 0
    ftrace_disabled: int = 0
    idle: int = 0
    """One of `IDLE`."""
    waited: int = 0
    """Another one, see `Switches.wait`."""
    text: int = 0
    text_end: int = 0
    """The kernel's own code, see `TEXT`."""


class Places(NamedTuple):
    """Addresses in the kernel's text where something of ours should stand."""

    breakpoints: frozenset[int] = frozenset()
    """Or the jumps that the kernel's optimizer puts in their places."""
    called: frozenset[int] = frozenset()
    """Functions that call a trampoline first."""
    keys: frozenset[int] = frozenset()
    """Not in the text: the static keys of what is in use."""
    traps: frozenset[int] = frozenset()
    """Breakpoints that the optimizer leaves alone. Jumps stand there of themselves, see `krie.kernel.traps`."""


class Switches:
    """The variables, compared with the kernel's text."""

    def __init__(
        self, read: Callable[[int, int], bytes], debugfs: int, addresses: Addresses, kprobe_type: int, idle: int = -1
    ) -> None:
        """`read`: bytes of the kernel's memory, raises `KernelError`; `debugfs`: its root; `kprobe_type`: of such perf
        events; `idle`: the kprobe at the idle function, where it is open already."""
        self._read, self._debugfs, self._at, self._type = read, debugfs, addresses, kprobe_type
        self._keys = StaticKeys(read)
        self.idle = idle

    def off(self) -> bool:
        """Whether kprobes are said to be off. False where that cannot be known."""
        with suppress(OSError, KernelError):
            if self._at.kprobes_all_disarmed:
                return self._read(self._at.kprobes_all_disarmed, 1) != b"\0"
            return self._file(SWITCH).strip() == b"0"
        return False

    def any_off(self) -> bool:
        """Whether one of the variables says that something is off, whatever the text says."""
        return self.off() or self._ftrace_off() or self._ftrace_is_disabled()

    def why_not_attach(self) -> str:
        """Why nothing should be attached to this kernel now, and what helps; empty where nothing is off.

        What is attached while a switch is off sees nothing, and may harm the kernel when it is detached.
        """
        for _ in range(_LOOKS):
            if not self.any_off():
                return ""
            time.sleep(_AGAIN_S)
        if self._ftrace_is_disabled():
            return (
                f"{_FTRACE_IS_DISABLED}: it found a bug of its own, or somebody wrote to memory; restart this machine"
            )
        if self._ftrace_off():
            return FTRACE_IS_OFF
        if not self.off():
            return ""
        if self._number(self._at.kprobe_ftrace_enabled) > 0 and not self.idle_is_called():
            # disarm_all_kprobes() takes all of them off ftrace. Arming would count these twice, which does no harm
            # where something stays in their filter: after a repair it does, with a count (see `_put_right`).
            return "kprobes were turned off by a write to memory while some were on ftrace; restart this machine"
        return f"all kprobes are turned off; write 1 to {SWITCH} in debugfs (/sys/kernel/debug)"

    def open_idle(self) -> int:
        """Another kprobe at the idle function, a negative number where there can be none.

        One that was made while kprobes were said to be off is in no filter, and not counted: see `wait`.
        """
        if (opened := self._open(self._at.idle)) >= 0 and not self.idle_is_called():
            os.close(opened)
            return -1
        return opened

    def wait(self) -> None:
        """For the mutex that all take who change kprobes, as whoever asks for one does, even in vain.

        In vain, since a kprobe on ftrace that is made while they are said to be off is not counted, and if they are on
        by the time it is closed, the counter falls all the same. So this asks for one within the first instruction,
        where none can be (check_ftrace_location() behind warn_kprobe_rereg(), kernel/kprobes.c).
        """
        if self._at.waited and (refused := self._open(self._at.waited + 1)) >= 0:
            os.close(refused)
        elif not self._at.waited or self._type < 0:
            time.sleep(_AGAIN_S)

    def _open(self, function: int) -> int:
        if not function or self._type < 0:
            return -1
        return perf_event_open(PerfEventAttr(type=self._type, disabled=1, config2=function), -1, 0)

    def look(self, places: Places, let_go_of_idle: Callable[[], None]) -> tuple[str, str]:
        """What it finds, and for `LIES` why it could not be put right. `let_go_of_idle` closes `idle` everywhere."""
        if lying := self._keys.lying(places.keys):
            return LIES, f"the static key at {lying:#x} says another thing than its branches do"
        ftrace, why = self._look_at_ftrace(places.called)
        if ftrace in (LIES, WAITS):
            return ftrace, why
        kprobes, why = self._look_at_kprobes(places, let_go_of_idle)
        return (ftrace if kprobes in (ARMED, OFF) and ftrace == RIGHTED else kprobes), why

    def agree(self, places: Places) -> bool:
        """Whether what is at these places may end; puts nothing right."""
        return not (
            self._keys.lying(places.keys)
            or (self.off() and self._text_is_armed(places))
            or self._ftrace_off()
            or self._ftrace_is_disabled()
        )

    def _ftrace_off(self) -> bool:
        """Whether ftrace is said to be off. False where that cannot be known."""
        with suppress(KernelError):
            return bool(self._at.ftrace_enabled) and not any(self._read(self._at.ftrace_enabled, 4))
        return False

    def _ftrace_is_disabled(self) -> bool:
        return bool(self._number(self._at.ftrace_disabled))

    def _look_at_ftrace(self, called: frozenset[int]) -> tuple[str, str]:
        if self._ftrace_is_disabled():
            return LIES, _FTRACE_IS_DISABLED
        if not self._ftrace_off():
            return ARMED, ""
        try:
            for _ in range(_SURE):
                if self._anybody_is_called(called):
                    # It may only be about to: the variable is set first, and the text of all functions behind it.
                    # Whoever reads waits for the same mutex (ftrace_enable_sysctl()).
                    FTRACE_SWITCH.read_bytes()
                if not self._ftrace_off():
                    return ARMED, ""
                if not self._anybody_is_called(called):
                    return WAITS, FTRACE_IS_OFF
            # What ftrace did last is in another variable: it changes nothing but this one.
            FTRACE_SWITCH.write_bytes(b"1\n")
        except OSError as error:
            return LIES, f"{FTRACE_SWITCH}: {error.strerror}"
        return (LIES, f"{FTRACE_SWITCH} was written in vain") if self._ftrace_off() else (RIGHTED, "")

    def _anybody_is_called(self, called: Iterable[int]) -> bool:
        return any(map(self.calls, called)) or self.idle_is_called()

    def _look_at_kprobes(self, places: Places, let_go_of_idle: Callable[[], None]) -> tuple[str, str]:
        if not self.off():
            return ARMED, ""
        for _ in range(_SURE):
            if not self._text_is_armed(places):
                return (OFF if self.off() else ARMED), ""
            self.wait()  # it may only be about to: disarm_all_kprobes() sets the variable first
            if not self.off():
                return ARMED, ""
        if not self._text_is_armed(places):
            return (OFF if self.off() else ARMED), ""
        try:
            return self._put_right(let_go_of_idle)
        except OSError as error:
            return LIES, f"{error.filename or SWITCH}: {error.strerror}"

    def _put_right(self, let_go_of_idle: Callable[[], None]) -> tuple[str, str]:
        """arm_all_kprobes() alone resets the variable. Breakpoints that are there it writes once more, and nothing else
        happens. But kprobes on ftrace it counts a second time. Then the counter does not reach 0 with the last of them,
        and their filter, empty by then, stands for all functions: the machine freezes.

        So an entry has to stay in that filter for ever. A kprobe that is closed while the variable lies leaves one.
        """
        if self._on_ftrace() and not (self.idle < 0 and self.idle_is_called()):
            if self.idle < 0:
                return LIES, "arming would count kprobes on ftrace twice, and nothing keeps their filter from emptying"
            let_go_of_idle()
            if not self.off():
                return ARMED, ""
            if not self.idle_is_called():
                return LIES, "arming would count kprobes on ftrace twice, and the entry in their filter did not stay"
        if self._on_ftrace() and self._idle_is_held():
            return LIES, "arming would count kprobes on ftrace twice, and the entry in their filter may be taken out"
        file = os.open(SWITCH, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._debugfs)
        try:
            os.write(file, b"1\n")
        finally:
            os.close(file)
        return (LIES, f"{SWITCH} was written in vain") if self.off() else (RIGHTED, "")

    def _idle_is_held(self) -> bool:
        """Whether somebody has a kprobe at the idle function, who takes its entry out of the filter by closing it."""
        return any(symbol.partition("+")[0] in IDLE for _, symbol in self._enabled_on_ftrace())

    def filter_may_empty(self) -> bool:
        """Whether the filter of kprobes on ftrace may get empty before their counter is 0, once `idle` is closed."""
        counter = self._at.kprobe_ftrace_enabled
        with suppress(OSError):
            # While kprobes are off, none is in the filter, and none counts.
            return bool(counter) and self.idle >= 0 and not self.off() and self._number(counter) != self._on_ftrace()
        return False

    def _text_is_armed(self, places: Places) -> bool:
        if not places.breakpoints and not places.traps:
            return self.idle_is_called()
        return any(self._begins(each, _BREAKPOINT, _JUMP) for each in places.breakpoints) or any(
            self._begins(each, _BREAKPOINT) for each in places.traps
        )

    def _begins(self, place: int, *instructions: int) -> bool:
        with suppress(OSError, KernelError):
            return self._read(place, 1)[0] in instructions
        return False

    def idle_is_called(self) -> bool:
        """Whether ftrace calls somebody when the idle function runs."""
        return self.calls(self._at.idle)

    def calls(self, function: int) -> bool:
        """Whether a function calls ftrace, or a trampoline, first."""
        with suppress(KernelError):
            code = self._read(function, 5) if function else bytes(5)
            return code[4 if code.startswith(_BEFORE_A_CALL) else 0] == _CALL
        return False

    def _number(self, address: int) -> int:
        with suppress(KernelError):
            return int.from_bytes(self._read(address, 4), "little", signed=True) if address else 0
        return 0

    def _on_ftrace(self) -> int:
        """How many kprobes are on ftrace and enabled. Of several at one place the kernel counts one."""
        return len(self._enabled_on_ftrace())

    def _enabled_on_ftrace(self) -> set[tuple[str, str]]:
        """Address, zeros to all while kernel.kptr_restrict is 2, and FUNCTION+OFFSET. What is left of a line that the
        name of a module breaks stands for it."""
        lines = self._file(_LIST).decode(errors="replace").split("\n")
        listed = (each.split() for each in lines if "[FTRACE]" in each and "[DISABLED]" not in each)
        return {(words[0], "".join(words[2:3])) for words in listed}

    def _file(self, name: str) -> bytes:
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._debugfs)
        try:
            pieces = []
            while piece := os.read(file, 1 << 16):
                pieces.append(piece)
            return b"".join(pieces)
        finally:
            os.close(file)
