"""KRIe: detects kernel exploits and kernel tampering with BPF, and lets Rego policies decide. Names for plugin authors.

Start at `krie.plugin.hookspecs` (the contract), then `krie.plugin.probe` (what a plugin contributes),
`krie.events.event`, `krie.events.layout` and `krie.events.wire` (how an event is declared).

Importing the package imports nothing else: each name is looked up when it is first asked for, so that a command pays
only for what it uses.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as of typing, which a hostile working folder could have, too: see krie.start
if TYPE_CHECKING:
    from .child import Child, ChildEnded, Link, forked
    from .config import PluginConfig
    from .decision import Action, Decision, FiredRule, Scope
    from .errors import ConfigError, KernelError, KrieError, PluginError
    from .events.event import Event, own_fields
    from .events.layout import Doc, Inline
    from .events.numbers import LONG, ONLY, PRESENT, WORD, Number
    from .events.path import path_text
    from .events.shared import Array, Memory, Nested, Shared, constants
    from .events.wire import (
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
        text_of,
    )
    from .kernel.bpf_attributes import ProgLoad
    from .kernel.bpf_functions import BpfFunction, bpf_functions
    from .kernel.btf import Btf
    from .kernel.features import Features
    from .kernel.image import unpacked
    from .kernel.maps import Map, Maps
    from .kernel.memory import KernelMemory, memory_of
    from .kernel.module_file import ModuleFile, ModuleSection, Relocation, build_id, module_file, module_files
    from .kernel.modules import LoadedModule, kernel_lines, kprobe_lines, loaded_modules
    from .kernel.mounts import mounted
    from .kernel.perf_event import PerfEventAttr, perf_event_open
    from .kernel.program import AttachType, Program, Trap
    from .kernel.symbols import Symbols, addresses, kallsyms_text
    from .kernel.syscalls import numbers_of
    from .kernel_files import AnyFile, KernelFile
    from .libc import system_call
    from .plugin.hookspecs import API_VERSION, hookimpl
    from .plugin.integrity import Check, Difference
    from .plugin.probe import Alternative, CannotProve, Enforcement, Probe, Sensor
    from .trust import read_trusted

__all__ = [
    "API_VERSION",
    "LONG",
    "ONLY",
    "PRESENT",
    "S32",
    "S64",
    "U8",
    "U16",
    "U32",
    "U64",
    "WORD",
    "Action",
    "Alternative",
    "AnyFile",
    "Array",
    "AttachType",
    "Bitmap",
    "Bool",
    "BpfFunction",
    "Btf",
    "Bytes",
    "CannotProve",
    "Chars",
    "Check",
    "Child",
    "ChildEnded",
    "Choice",
    "Comm",
    "ConfigError",
    "Decision",
    "Difference",
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
    "KernelFile",
    "KernelMemory",
    "KrieError",
    "Link",
    "LoadedModule",
    "Map",
    "Maps",
    "Memory",
    "ModuleFile",
    "ModuleSection",
    "Nested",
    "Number",
    "Pad1",
    "Pad2",
    "Pad3",
    "Pad4",
    "Pad5",
    "Pad6",
    "Pad7",
    "PerfEventAttr",
    "PluginConfig",
    "PluginError",
    "Probe",
    "ProgLoad",
    "Program",
    "Relocation",
    "Scope",
    "Sensor",
    "Shared",
    "Symbols",
    "Trap",
    "addresses",
    "bpf_functions",
    "build_id",
    "constants",
    "forked",
    "hookimpl",
    "kallsyms_text",
    "kernel_lines",
    "kprobe_lines",
    "loaded_modules",
    "memory_of",
    "module_file",
    "module_files",
    "mounted",
    "numbers_of",
    "own_fields",
    "path_text",
    "perf_event_open",
    "read_trusted",
    "system_call",
    "text_of",
    "unpacked",
]

_MODULES = {
    "child": "Child ChildEnded Link forked",
    "config": "PluginConfig",
    "decision": "Action Decision FiredRule Scope",
    "errors": "ConfigError KernelError KrieError PluginError",
    "events.event": "Event own_fields",
    "events.layout": "Doc Inline",
    "events.numbers": "LONG ONLY PRESENT WORD Number",
    "events.path": "path_text",
    "events.shared": "Array Memory Nested Shared constants",
    "events.wire": "S32 S64 U8 U16 U32 U64 Bitmap Bool Bytes Chars Choice Comm FlagSet Hex64 Json Pad1 Pad2 "
    "Pad3 Pad4 Pad5 Pad6 Pad7 text_of",
    "kernel.bpf_attributes": "ProgLoad",
    "kernel.bpf_functions": "BpfFunction bpf_functions",
    "kernel.btf": "Btf",
    "kernel.features": "Features",
    "kernel_files": "AnyFile KernelFile",
    "kernel.image": "unpacked",
    "libc": "system_call",
    "kernel.maps": "Map Maps",
    "kernel.memory": "KernelMemory memory_of",
    "kernel.module_file": "ModuleFile ModuleSection Relocation build_id module_file module_files",
    "kernel.modules": "LoadedModule kernel_lines kprobe_lines loaded_modules",
    "kernel.mounts": "mounted",
    "kernel.perf_event": "PerfEventAttr perf_event_open",
    "kernel.program": "Trap AttachType Program",
    "kernel.symbols": "Symbols addresses kallsyms_text",
    "kernel.syscalls": "numbers_of",
    "plugin.hookspecs": "API_VERSION hookimpl",
    "plugin.integrity": "Check Difference",
    "plugin.probe": "Alternative CannotProve Enforcement Probe Sensor",
    "trust": "read_trusted",
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}

if not TYPE_CHECKING:  # type checkers know the names above, and shall report any other one

    def __getattr__(name: str) -> object:
        if (module := _MODULE_OF.get(name)) is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module  # noqa: PLC0415 - as above

        value = globals()[name] = getattr(import_module(f".{module}", __name__), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
