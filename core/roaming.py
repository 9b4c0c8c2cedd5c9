"""Programs that roam: kprobes at instructions drawn at random, new at each start and moved at an interval.

The loader child loads them; it has gone by the time they move, so the agent attaches them, at once and ever again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .errors import AttachError
from .kernel.attach import attach_somewhere
from .probe import Program

Attach = Callable[[Program, int, range], tuple[int, int]]


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


class Roaming:
    """All programs of one agent that roam."""

    def __init__(
        self,
        programs: Iterable[tuple[str, Program]],
        descriptors: Mapping[str, Sequence[int]],
        code_of: Callable[[str], range],
        attach: Attach = attach_somewhere,
    ) -> None:
        """Attach nothing yet. `programs`: (`<plugin>.<probe>`, program); `descriptors`: of what the loader handed over;
        `code_of`: addresses of a kernel function, asked once for each."""
        self._attach = attach
        self._roamers = [
            _Roamer(probe, program, descriptors[f"program:{program.label}"][0]) for probe, program in programs
        ]
        self._code = {target: code_of(target) for target in {each.program.target for each in self._roamers}}

    def move(self) -> dict[str, str]:
        """Attach each at a new place, and only then detach it from the one before.

        Returns why not, by probe: such a program stays where it was, if it was anywhere.
        """
        failed: dict[str, str] = {}
        for each in self._roamers:
            try:
                offset, link = self._attach(each.program, each.descriptor, self._code[each.program.target])
            except AttachError as error:
                failed[each.probe] = str(error)
                continue
            if each.link >= 0:
                os.close(each.link)
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
        for each in self._roamers:
            if each.link >= 0:
                os.close(each.link)
                each.link = -1
