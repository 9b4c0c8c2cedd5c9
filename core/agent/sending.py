"""Whether programs in the kernel send records, and to whom."""

from __future__ import annotations

from collections.abc import Mapping

from ..events.core_maps import State
from ..events.numbers import ONLY
from ..kernel.maps import Map


class Sending:
    """The map by which all programs know the agent. Errors are `KernelError`."""

    def __init__(self, maps: Mapping[str, Map], tgid: int) -> None:
        """Change nothing yet. `tgid`: the agent's."""
        self._map, self._tgid = maps["krie_agent"], tgid

    def start(self) -> None:
        """Let programs send records."""
        self._map.set(ONLY, State(self._tgid, True).encode())

    def stop(self) -> None:
        """Let them cease, and go on to know who the agent is."""
        self._map.set(ONLY, State(self._tgid, False).encode())

    def is_on(self) -> bool:
        """Whether programs in the kernel take it so: others could have changed it."""
        return self._map.get(ONLY) == State(self._tgid, True).encode()
