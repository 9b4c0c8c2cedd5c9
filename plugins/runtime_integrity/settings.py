"""What the programs of this plugin are told at start: what is configured, and what only this machine knows."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import Annotated, ClassVar

from krie import ONLY, U32, U64, Btf, Doc, Maps, Pad4, Shared, addresses

from .config import RuntimeIntegrityConfig
from .topic import PREFIX, pmu_type

_log = logging.getLogger("krie")
_COMMIT = "commit_creds"
_INITIAL = "init_user_ns"
_SIGNALS = "bpf_send_signal_task"
"""A function that BPF programs can call since 6.13 (6280cf718db0): as the helper send_signal, and to any process."""
_CALLS_KERNEL = 0x2085
"""How the call of one begins, which has its BTF id as its upper half."""


@dataclass(frozen=True, slots=True)
class Settings(Shared):
    """What all programs of this plugin are told of this kernel and the configuration."""

    C_NAME: ClassVar[str] = f"{PREFIX}_settings"
    commit_creds: Annotated[U64, Doc("where that function begins; 0: not known")]
    initial_namespace: Annotated[U64, Doc("where the initial user namespace is; 0: not known")]
    factor: Annotated[U64, Doc("by which sums go on: odd, and nobody else's to know")]
    signals: Annotated[U64, Doc("instruction that calls bpf_send_signal_task(), but for its register; 0: none does")]
    map_access: Annotated[U32, Doc("1: calls that read or write map elements are events")]
    kprobe_type: Annotated[U32, Doc("type of performance events that sysfs gives; 0: none")]
    uprobe_type: Annotated[U32, Doc("likewise")]
    pad: Pad4 = b""


def tell(maps: Maps, config: RuntimeIntegrityConfig) -> None:
    """Tell them. Raises `KernelError`."""
    found = addresses({_COMMIT, _INITIAL})
    commit, initial = (places[0] if len(places := found.get(name, ())) == 1 else 0 for name in (_COMMIT, _INITIAL))
    if not initial:
        _log.warning("user namespaces are not looked into: the kernel does not tell where %s lies", _INITIAL)
    factor = secrets.randbits(64) | 1
    function = Btf().function_id(_SIGNALS)
    signals = function << 32 | _CALLS_KERNEL if function else 0
    settings = Settings(commit, initial, factor, signals, config.map_access, pmu_type("kprobe"), pmu_type("uprobe"))
    maps[Settings.C_NAME].set(ONLY, settings.encode())
