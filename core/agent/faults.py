"""Failures of plugins, on their way to the journal."""

from __future__ import annotations

import logging

from ..plugin.isolation import PluginFault

_log = logging.getLogger("krie")


class Faults:
    """Logs each at once, and keeps it for the next tick, since it may have come within another event."""

    def __init__(self) -> None:
        """Start with no faults."""
        self._waiting: list[PluginFault] = []

    def note(self, fault: PluginFault) -> None:
        """Log a plugin's fault, and keep it for the next tick."""
        where = f"plugin {fault.plugin}, {fault.hook}: " if fault.hook else ""
        headline, _, details = fault.error.partition("\n")  # of what does not compile the compiler says more
        _log.error("%s%s", where, headline, extra={"details": f"{details}\n{fault.traceback}".strip("\n")})
        self._waiting.append(fault)

    def take(self) -> list[PluginFault]:
        """Those that were not told yet."""
        waiting, self._waiting = self._waiting, []
        return waiting
