"""What is wrong with services now, and what is to be told of that."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Note:
    """What is to be told of a service."""

    service: str
    state: str
    """One of `krie.events.agent.SERVICE_STATES`; `refused`: a bundle was."""
    reason: str = ""
    count: int = 0


class Troubles:
    """Keeps both until they are asked for."""

    def __init__(self) -> None:
        """Start with nothing wrong."""
        self.now: dict[str, str] = {}
        """What is wrong, by service."""
        self._notes: list[Note] = []

    def trouble(self, service: str, state: str, reason: str) -> None:
        """Something is wrong with it from here on."""
        self.now[service] = reason
        self._notes.append(Note(service, state, reason))

    def well(self, service: str) -> None:
        """Nothing is, which is told where something was."""
        if self.now.pop(service, ""):
            self._notes.append(Note(service, "well"))

    def note(self, note: Note) -> None:
        """Have something told that is over already."""
        self._notes.append(note)

    def take(self) -> list[Note]:
        """What has happened since the last call."""
        notes, self._notes = self._notes, []
        return notes
