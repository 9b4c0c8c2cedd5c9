"""Events of the agent's own that were found within another event, and wait until it is done with."""

from __future__ import annotations

from ..events.enforcement import Guarded
from ..events.event import Event

Told = tuple[type[Event], dict[str, object]]
"""An event of the agent's own: its class, and its fields by name."""


class Pending:
    """Keeps them in order."""

    def __init__(self) -> None:
        """Start with nothing to tell."""
        self._waiting: list[Told] = []

    def tell(self, event: type[Event], **fields: object) -> None:
        """Have it told at the next tick."""
        self._waiting.append((event, fields))

    def tell_seen(self, attempt: str) -> None:
        """Of what somebody did to the agent and was found without who did it."""
        self.tell(Guarded, stranger_tgid=0, stranger_start_time=0, count=1, attempt=attempt)

    def take(self) -> list[Told]:
        """Those that were not told yet."""
        waiting, self._waiting = self._waiting, []
        return waiting
