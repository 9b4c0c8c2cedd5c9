"""Stand-ins: disabled kprobes, where the last enabled kprobe of a place is about to be removed.

The kernel reads `kprobes_all_disarmed` when it disables that one (kernel/kprobes.c, __disable_kprobe()), then forgets
it, whether its breakpoint has gone or not. No look of ours is so near that nothing can be written in between. But while
a stand-in is registered at the place, the kernel knows whose breakpoint it is, and it goes when the stand-in is enabled
and disabled again. Stand-ins are events of tracefs. They outlive who made them, and cost nothing while disabled.

Until then, no kprobe should be within a jump's length: the kernel believes of a place that is disabled that nothing is
there. It puts a breakpoint into the jump that has replaced one, or another jump over it (unoptimize_kprobe(),
arch_check_optimized_kprobe()).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from .switches import Switches

_EVENTS = "kprobe_events"
_GROUP, _NAME = "krie_stand_in_", "at_"
_UNKNOWN = 0xFFF


class StandIns:
    """Those that this process made, or took over."""

    def __init__(self, tracefs: int, switches: Switches) -> None:
        """`tracefs`: descriptor of its root, -1 where there is none."""
        self._tracefs, self._switches = tracefs, switches
        self._names: dict[int, str] = {}
        self._opcodes: dict[int, int] = {}

    @property
    def places(self) -> frozenset[int]:
        """Where some are."""
        return frozenset(self._names)

    def put(self, places: Mapping[int, int]) -> None:
        """Before a kprobe at each of these is removed; with what is there without one, -1 where that is not known.

        Where none can be made, the look before has to do.
        """
        for place, opcode in places.items():
            name = f"{_GROUP}{os.getpid()}/{_NAME}{place:x}_{opcode & _UNKNOWN:x}"
            with suppress(OSError):
                self._write(_EVENTS, f"p:{name} {place:#x}\n", os.O_APPEND)
                self._names[place], self._opcodes[place] = name, opcode

    def remove(self, is_safe: Callable[[], bool]) -> bool:
        """Remove those whose breakpoints have gone. The others take theirs out before that, where `is_safe` says that
        the switches tell the truth. Returns whether none is left."""
        for place, name in list(self._names.items()):
            with suppress(OSError):
                if self._stays(place) and is_safe():
                    for word in "10":
                        self._write(f"events/{name}/enable", word)
                if not self._stays(place):
                    self._write(_EVENTS, f"-:{name}\n", os.O_APPEND)
                    del self._names[place], self._opcodes[place]
        return not self._names

    def take_over(self) -> None:
        """Those whose makers have gone."""
        with suppress(OSError):
            for group in self._folder("events"):
                maker = group.removeprefix(_GROUP)
                if maker != group and maker.isdecimal() and not Path("/proc", maker).exists():
                    for name in self._folder(f"events/{group}"):
                        if name.startswith(_NAME):
                            place, opcode = (int(each, 16) for each in name.removeprefix(_NAME).split("_"))
                            self._names[place] = f"{group}/{name}"
                            self._opcodes[place] = -1 if opcode == _UNKNOWN else opcode

    def _stays(self, place: int) -> bool:
        """Whether something is there that nobody else has. The jump of another kprobe may cover it."""
        return self._switches.differs(place, self._opcodes[place]) and not self._switches.is_held(place)

    def _folder(self, name: str) -> list[str]:
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._tracefs)
        try:
            return os.listdir(folder)
        finally:
            os.close(folder)

    def _write(self, name: str, text: str, flags: int = 0) -> None:
        file = os.open(name, os.O_WRONLY | os.O_CLOEXEC | flags, dir_fd=self._tracefs)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)
