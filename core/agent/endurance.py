"""The agent's recurring work may fail, as where somebody has taken its descriptors: it tells that and goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..errors import KernelError

_log = logging.getLogger("krie")


@dataclass(frozen=True, slots=True)
class Failing:
    """One kind of work that failed since the last look."""

    work: str
    reason: str
    count: int


class Endurance:
    """Runs work, and remembers what failed of it."""

    def __init__(self) -> None:
        """Start with no failures."""
        self._failed: dict[tuple[str, str], int] = {}
        self._logged: set[tuple[str, str]] = set()

    def run(self, work: str, action: Callable[[], object]) -> None:
        """Run it. What the kernel refuses does not end the agent; bugs do, and so does what is wrong on purpose."""
        try:
            action()
        except (KernelError, OSError, MemoryError) as error:
            what = (work, f"{error}" or type(error).__name__)
            if what not in self._logged:
                _log.error("%s failed, and is tried again: %s", *what)
                self._logged.add(what)
            self._failed[what] = self._failed.get(what, 0) + 1
        else:
            self._logged = {each for each in self._logged if each[0] != work}

    def look(self) -> Iterator[Failing]:
        """What failed since the last look."""
        failed, self._failed = self._failed, {}
        for (work, reason), count in failed.items():
            yield Failing(work, reason, count)
