"""An attacker who takes descriptors while an agent starts, before anything guards its objects."""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from . import own_bpf

_FROM = 500
"""What is taken has high numbers: no attribute of bpf(2) that is no descriptor has one of these by chance."""


class Early:
    """Takes maps and programs by name (of sensors' programs without its number), as soon as they are there, in a thread
    of its own."""

    def __init__(
        self, maps: Iterable[str], programs: Iterable[str], taken: Callable[[str, int], None] = lambda *_: None
    ) -> None:
        """Begin. `taken`: called with the name and the descriptor of each, in that thread."""
        self.map = dict.fromkeys(maps, -1)
        self.program = dict.fromkeys(programs, -1)
        self._taken = taken
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Take nothing any more."""
        self._end.set()
        self._thread.join()

    def close(self) -> None:
        """Let go of all."""
        for each in self.held():
            os.close(each)

    def held(self) -> Iterator[int]:
        yield from (*self.map.values(), *self.program.values())

    def _take(self) -> None:
        while not self._end.is_set() and min(self.held()) < 0:
            self._look(self.map, own_bpf.NEXT_MAP, own_bpf.GET_MAP)
            self._look(self.program, own_bpf.NEXT_PROG, own_bpf.GET_PROG)
            time.sleep(0.1)

    def _look(self, wanted: dict[str, int], next_: int, get: int) -> None:
        for found, descriptor in own_bpf.named(next_, get, 0, 0):
            # Sensors' programs have a number behind their name: see krie.loader.program_name.
            name = next((each for each in (found, found.rpartition("_")[0]) if wanted.get(each, 0) < 0), "")
            if name:
                wanted[name] = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FROM)
                self._taken(name, wanted[name])
            os.close(descriptor)
