"""What the programs of this plugin are told at start: what is configured, and what only this machine knows."""

from __future__ import annotations

import struct

from krie import Btf, Maps, addresses

from .config import RuntimeIntegrityConfig
from .topic import PREFIX, pmu_type

_COMMIT = "commit_creds"
_SIGNALS = "bpf_send_signal_task"
"""A function that BPF programs can call since 6.13 (6280cf718db0): as the helper send_signal, and to any process."""
_CALLS_KERNEL = 0x2085
"""How the call of one begins, which has its BTF id as its upper half."""


def tell(maps: Maps, config: RuntimeIntegrityConfig) -> None:
    """Fill `struct runtime_integrity_settings`. Raises `KernelError`."""
    numbers = (config.map_access, pmu_type("kprobe"), pmu_type("uprobe"))
    places = addresses({_COMMIT}).get(_COMMIT, ())
    commit = places[0] if len(places) == 1 else 0
    function = Btf().function_id(_SIGNALS)
    signals = function << 32 | _CALLS_KERNEL if function else 0
    maps[f"{PREFIX}_settings"].set(bytes(4), struct.pack("=IIIxxxxQQ", *numbers, commit, signals))
