"""Programs that roam: kprobes at instructions drawn at random, new at each start and moved at an interval.

The loader child loads them; it has gone by the time they move, so the agent attaches them, at once and ever again.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .errors import AttachError
from .ground import Ground
from .kernel.attach import attach_somewhere
from .kernel.detach import detach
from .probe import Program

Attach = Callable[[Program, int, range, Container[int]], tuple[int, int]]
_LEAVING = "the probes that moved before are not out of the kernel's text yet"
_JUMP_BYTES = 5
_MOST_DRAWS = 8
"""Where kprobes are never optimized (sysctl debug.kprobes-optimization), a busy place keeps its breakpoint."""


@dataclass(frozen=True, slots=True)
class Trap:
    """Where one program is attached now."""

    probe: str
    """`<plugin>.<probe>`"""
    target: str
    offset: int

    def __str__(self) -> str:
        """As the kernel lists kprobes."""
        return f"{self.target}+{self.offset:#x}"


@dataclass(slots=True)
class _Roamer:
    probe: str
    program: Program
    descriptor: int
    link: int = -1
    offset: int = 0
    draws: int = 0
    """How often another place may still be drawn before it moves anyway."""


class Roaming:
    """All programs of one agent that roam."""

    def __init__(
        self,
        programs: Iterable[tuple[str, Program]],
        descriptors: Mapping[str, Sequence[int]],
        code_of: Callable[[Collection[str]], Mapping[str, range]],
        is_jump: Callable[[int], bool],
        ground: Ground,
        attach: Attach = attach_somewhere,
    ) -> None:
        """Attach nothing yet. `programs`: (`<plugin>.<probe>`, program); `descriptors`: of what the loader handed over;
        `code_of`: addresses of kernel functions, asked once for all; `is_jump`: what stands at an address now."""
        self._attach, self._is_jump, self._ground = attach, is_jump, ground
        self._roamers = [
            _Roamer(probe, program, descriptors[f"program:{program.label}"][0]) for probe, program in programs
        ]
        targets = {each.program.target for each in self._roamers}
        self._late = False
        self._code = code_of(targets) if targets else {}

    def move(self) -> dict[str, str]:
        """Attach each at a new place, and only then detach them from the ones before.

        Returns why not, by probe: such a program stays where it was, if it was anywhere. Where what was left before is
        not out of the text yet, that is said when it has taken until the next time; `draw_again` makes up for it.
        """
        late, self._late = self._late, not self._ground.settled()
        if self._late:
            return dict.fromkeys((each.probe for each in self._roamers), _LEAVING) if late else {}
        for each in self._roamers:
            each.draws = _MOST_DRAWS if each.program.busy else 0
        return self._move(self._roamers)

    def draw_again(self) -> dict[str, str]:
        """Move the busy ones that cost a breakpoint; to be called some moments after `move`, which the kernel needs to
        put jumps in their places, and ever again: another one that comes to lie within a jump makes a breakpoint of it.
        Answers as `move` does, but for what keeps all of them where they are."""
        if self._ground.obstacle() or not self._ground.settled():
            return {}
        if self._late:
            return self.move()
        breakpoints = [
            each
            for each in self._roamers
            if each.draws and each.link >= 0 and not self._is_jump(self._code[each.program.target].start + each.offset)
        ]
        for each in breakpoints:
            each.draws -= 1
        return self._move(breakpoints)

    def _move(self, roamers: Iterable[_Roamer]) -> dict[str, str]:
        """Nothing is attached between the first and the last that is released (see `Ground.settled`), and nothing so
        near to another one that the jump of either would reach it: of a probe that is disabled the kernel believes that
        nothing of it is there, and writes over what was left (arch_check_optimized_kprobe())."""
        failed: dict[str, str] = {}
        left = []
        taken = {(each.program.target, each.offset) for each in self._roamers if each.link >= 0}
        for each in roamers:
            if why := self._ground.obstacle():
                failed[each.probe] = why
                continue
            code = self._code[each.program.target]
            near = (offset for target, offset in taken if target == each.program.target)
            avoided = {at for offset in near for at in range(offset - _JUMP_BYTES + 1, offset + _JUMP_BYTES)}
            try:
                offset, link = self._attach(each.program, each.descriptor, code, avoided)
            except AttachError as error:
                if each.link < 0 or error.errno != errno.ENOENT:  # it has no other place
                    failed[each.probe] = str(error)
                continue
            taken.add((each.program.target, offset))
            self._ground.hold(link, code.start + offset)
            left += [each.link] if each.link >= 0 else []
            each.offset, each.link = offset, link
        for link in left:
            self._ground.release(link)
        return failed

    def traps(self, plugin: str) -> tuple[Trap, ...]:
        """Where those of one plugin are attached now."""
        return tuple(
            Trap(each.probe, each.program.target, each.offset)
            for each in self._roamers
            if each.link >= 0 and each.probe.startswith(f"{plugin}.")
        )

    def close(self) -> None:
        """Detach all."""
        attached = [each for each in self._roamers if each.link >= 0]
        detach(each.link for each in attached)
        for each in attached:
            each.link = -1
