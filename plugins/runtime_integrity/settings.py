"""What the programs of this plugin are told at start: what is configured, and what only this machine knows."""

from __future__ import annotations

import struct

from krie import Maps

from .config import RuntimeIntegrityConfig
from .topic import PREFIX, pmu_type


def tell(maps: Maps, config: RuntimeIntegrityConfig) -> None:
    """Fill `struct runtime_integrity_settings`. Raises `KernelError`."""
    values = (config.map_access, pmu_type("kprobe"), pmu_type("uprobe"))
    maps[f"{PREFIX}_settings"].set(bytes(4), struct.pack("=III", *values))
