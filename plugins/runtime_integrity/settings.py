"""What the programs of this plugin are told at start: what is configured, and what only this machine knows."""

from __future__ import annotations

import struct

from krie import Maps, addresses

from .config import RuntimeIntegrityConfig
from .topic import PREFIX, pmu_type

_COMMIT = "commit_creds"


def tell(maps: Maps, config: RuntimeIntegrityConfig) -> None:
    """Fill `struct runtime_integrity_settings`. Raises `KernelError`."""
    numbers = (config.map_access, pmu_type("kprobe"), pmu_type("uprobe"))
    places = addresses({_COMMIT}).get(_COMMIT, ())
    commit = places[0] if len(places) == 1 else 0
    maps[f"{PREFIX}_settings"].set(bytes(4), struct.pack("=IIIxxxxQ", *numbers, commit))
