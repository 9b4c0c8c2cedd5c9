"""By what enforcement acts on the kernel: tables that programs read, and programs that are run for the agent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..enforce.holders import Holder
from ..enforce.self_defence import Held
from ..enforce.verdicts import Verdicts
from ..kernel.inspection import Inspector
from ..kernel.maps import Maps
from ..processes.binding import Bindings


@dataclass(frozen=True, slots=True)
class Levers:
    """Of one agent, as they were loaded."""

    verdicts: Verdicts
    bindings: Bindings
    maps: Maps
    kinds: tuple[int, ...]
    """Kinds of events in order of their slots."""
    sensors: tuple[str, ...]
    """Names of sensors in order of their slots."""
    inspector: Inspector
    beat: Callable[[], object]
    """Tells the guard's timer that the agent lives."""
    holders: Callable[[Iterable[Held]], Iterable[Holder]]
    """Who has which of the agent's BPF objects, since the last look."""
