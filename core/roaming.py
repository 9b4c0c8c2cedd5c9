"""Programs that roam: kprobes at instructions drawn at random, new at each start and moved at an interval.

The loader child loads them; it has gone by the time they move, so the agent attaches them, at once and ever again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .errors import AttachError
from .ground import Ground
from .kernel.attach import attach_somewhere
from .kernel.detach import detach
from .probe import Program

Attach = Callable[[Program, int, range, Callable[[int], bool]], tuple[int, int]]
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
        self._code = code_of(targets) if targets else {}

    def move(self) -> dict[str, str]:
        """Attach each at a new place, and only then detach it from the one before.

        Returns why not, by probe: such a program stays where it was, if it was anywhere.
        """
        for each in self._roamers:
            each.draws = _MOST_DRAWS if each.program.busy else 0
        return self._move(self._roamers)

    def draw_again(self) -> dict[str, str]:
        """Move the busy ones that cost a breakpoint; to be called some moments after `move`, which the kernel needs to
        put jumps in their places, and ever again: another one that comes to lie within a jump makes a breakpoint of it.
        Answers as `move` does, but for what keeps all of them where they are."""
        if self._ground.obstacle():
            return {}
        breakpoints = [
            each
            for each in self._roamers
            if each.draws and each.link >= 0 and not self._is_jump(self._code[each.program.target].start + each.offset)
        ]
        for each in breakpoints:
            each.draws -= 1
        return self._move(breakpoints)

    def _move(self, roamers: Iterable[_Roamer]) -> dict[str, str]:
        failed: dict[str, str] = {}
        for each in roamers:
            if why := self._ground.obstacle():
                failed[each.probe] = why
                continue
            code = self._code[each.program.target]
            try:
                offset, link = self._attach(each.program, each.descriptor, code, self._is_jump)
            except AttachError as error:
                failed[each.probe] = str(error)
                continue
            self._ground.hold(link, code.start + offset)
            if each.link >= 0:
                self._ground.release(each.link)
            each.offset, each.link = offset, link
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
