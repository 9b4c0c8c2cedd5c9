"""Programs that roam: kprobes at instructions drawn at random, new at each start and moved at an interval.

The loader child loads them; it has gone by the time they move, so the agent attaches them, at once and then repeatedly.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import AttachError
from ..kernel.detach import detach
from ..kernel.keeper import TRAP
from ..kernel.program import Program, Trap
from .ground import Ground

Attach = Callable[[Program, int, range], tuple[int, int]]
"""See `krie.kernel.attach.attach_somewhere`."""


@dataclass(slots=True)
class _Roamer:
    probe: str
    program: Program
    descriptor: int
    link: int = -1
    offset: int = 0
    without_place: bool = False
    """That the target has none for it was said."""


class Roaming:
    """All programs of one agent that roam."""

    def __init__(
        self,
        programs: Iterable[tuple[str, Program]],
        descriptors: Mapping[str, Sequence[int]],
        code_of: Callable[[Collection[str]], Mapping[str, range]],
        ground: Ground,
        attach: Attach,
    ) -> None:
        """Attach nothing yet. `programs`: (`<plugin>.<probe>`, program); `descriptors`: of what the loader handed over;
        `code_of`: addresses of kernel functions, asked once for all."""
        self._attach, self._ground = attach, ground
        self._roamers = [
            _Roamer(probe, program, descriptors[f"program:{program.label}"][0]) for probe, program in programs
        ]
        targets = {each.program.target for each in self._roamers}
        self._code = code_of(targets) if targets else {}

    def move(self) -> dict[str, str]:
        """Attach each at a new place, and only then detach it from the previous one.

        Returns why not, by probe: such a program stays where it was, if it was anywhere. That there is no other place
        for one is nothing to tell, and that there is none at all is told once.
        """
        failed: dict[str, str] = {}
        for each in self._roamers:
            if why := self._ground.obstacle():
                failed[each.probe] = why
                continue
            code = self._code[each.program.target]
            try:
                offset, link = self._attach(each.program, each.descriptor, code)
            except AttachError as error:
                nowhere = error.errno == errno.ENOENT
                if not nowhere or (each.link < 0 and not each.without_place):
                    failed[each.probe] = str(error)
                each.without_place = nowhere and each.link < 0
                continue
            self._ground.hold(link, code.start + offset, TRAP)
            before, each.offset, each.link = each.link, offset, link
            if before >= 0:
                self._ground.release(before)
        return failed

    def traps(self, plugin: str) -> tuple[Trap, ...]:
        """Where those of one plugin are attached now."""
        return tuple(
            Trap(each.probe, each.program.target, each.offset)
            for each in self._roamers
            if each.link >= 0 and each.probe.startswith(f"{plugin}.")
        )

    def close(self) -> None:
        """Detach all roaming programs."""
        attached = [each for each in self._roamers if each.link >= 0]
        detach(each.link for each in attached)
        for each in attached:
            each.link = -1
