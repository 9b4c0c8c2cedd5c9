"""What plugins find by looking, at intervals or in the background: events like those of programs."""

from __future__ import annotations

from ..events.agent import OwnEvents
from ..plugin.manager import Plugins
from .bus import Bus
from .ground import Ground


class Scans:
    """Asks plugins to look, and gives the bus what they find."""

    def __init__(self, plugins: Plugins, own: OwnEvents, bus: Bus, ground: Ground) -> None:
        """Look at nothing yet. `own` completes what plugins find."""
        self._plugins, self._own, self._bus, self._ground = plugins, own, bus, ground

    def scan(self) -> None:
        """Let all plugins look now."""
        for event in self._plugins.scan(self._own.complete):
            self._bus.handle(event)

    def poll(self) -> None:
        """Take what they found in the background."""
        for found in self._plugins.poll(self._own.complete):
            self._bus.handle(found)

    def scan_what_is_put_right(self) -> None:
        """Let plugins see, and rules decide, what a variable holds before the agent puts it right for its own sake."""
        if self._ground.turned_off():
            self.scan()
