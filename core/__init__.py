"""KRIe: detects kernel exploits and kernel tampering with BPF, and lets Rego policies decide. Names for plugin authors.

Start at `krie.hookspecs` (the contract), then `krie.probe` (what a plugin contributes), `krie.event`, `krie.layout`
and `krie.wire` (how an event is declared).
"""

from .config import PluginConfig
from .decision import Action, Decision, FiredRule, Scope
from .errors import KernelError, KrieError, PluginError
from .event import Event, own_fields
from .hookspecs import API_VERSION, hookimpl
from .kernel.btf import Btf
from .kernel.features import Features
from .kernel.maps import Map, Maps, total
from .kernel.memory import KernelMemory
from .kernel.mounts import mounted
from .kernel.symbols import Symbols, addresses
from .layout import Doc, Inline
from .path import path_text
from .probe import Alternative, AttachType, Enforcement, Probe, Program, Sensor
from .roaming import Trap
from .wire import (
    S32,
    S64,
    U8,
    U16,
    U32,
    U64,
    Bitmap,
    Bool,
    Bytes,
    Chars,
    Choice,
    Comm,
    FlagSet,
    Hex64,
    Json,
    Pad1,
    Pad2,
    Pad3,
    Pad4,
    Pad5,
    Pad6,
    Pad7,
)

__all__ = [
    "API_VERSION",
    "S32",
    "S64",
    "U8",
    "U16",
    "U32",
    "U64",
    "Action",
    "Alternative",
    "AttachType",
    "Bitmap",
    "Bool",
    "Btf",
    "Bytes",
    "Chars",
    "Choice",
    "Comm",
    "Decision",
    "Doc",
    "Enforcement",
    "Event",
    "Features",
    "FiredRule",
    "FlagSet",
    "Hex64",
    "Inline",
    "Json",
    "KernelError",
    "KernelMemory",
    "KrieError",
    "Map",
    "Maps",
    "Pad1",
    "Pad2",
    "Pad3",
    "Pad4",
    "Pad5",
    "Pad6",
    "Pad7",
    "PluginConfig",
    "PluginError",
    "Probe",
    "Program",
    "Scope",
    "Sensor",
    "Symbols",
    "Trap",
    "addresses",
    "hookimpl",
    "mounted",
    "own_fields",
    "path_text",
    "total",
]
