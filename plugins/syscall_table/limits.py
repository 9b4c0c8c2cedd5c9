"""What this plugin does not look at on a kernel, in words for `krie doctor`."""

from __future__ import annotations

import os
from pathlib import Path

from . import registers
from .config import SyscallTableConfig
from .control import SYMBOLS as CONTROL
from .kallsyms import Kallsyms
from .reference import PLACES

_TABLES = ("sys_call_table", "idt_table")
_LISTS = {
    "module_notify_list": "notifiers",
    "ftrace_ops_list": "ftrace's tracers",
    "kprobe_table": "kprobes",
    "init_net": "packet filters",
    "timer_bases": "timers",
    "cpu_worker_pools": "work items",
    "hrtimer_bases": "timers of high resolution",
    "init_task": "kernel threads",
    "script_format": "binary formats",
}
"""Variables in which functions are listed, and what those are."""
SYMBOLS = tuple(_LISTS)
NO_REGISTERS = "LSTAR, CSTAR and SYSENTER_EIP are read only where the module msr is loaded"
NO_CONTROL = "this kernel does not tell which bits of CR4 it pins, and its copies of that register"
NEVER = "IDTR, CR0, CR4 itself and the debug registers are never read: no file and no helper of BPF shows them"


def limits(config: SyscallTableConfig, symbols: Kallsyms | None) -> str:
    """All of them. `symbols`: None where nothing was tried yet."""
    found = ["what is undone between two looks is not seen"]
    if symbols is not None:
        absent = [each for each in _TABLES if not symbols.address(each)]
        found += [f"this kernel does not tell where {', '.join(absent)} is"] if absent else []
    if symbols is None or not registers.shown():
        found.append(NO_REGISTERS)
    if symbols is not None and not all(map(symbols.address, CONTROL)):
        found.append(NO_CONTROL)
    return "; ".join((*found, NEVER, *_of_code(config, symbols)))


def _of_code(config: SyscallTableConfig, symbols: Kallsyms | None) -> list[str]:
    """What the kernel's code is compared with, as far as that is known without unpacking an image, and its lists."""
    if not config.code:
        return ["neither the kernel's code nor its lists of functions are looked at (code = false)"]
    if symbols is None:
        return [_WITHOUT]
    found = []
    if not symbols.address("__start___jump_table"):
        found.append("the kernel's code is not compared: this kernel does not tell where its jump labels are")
    elif not any(Path(each.format(os.uname().release)).exists() for each in PLACES):
        found.append("there is no boot image, so the kernel's code is compared with what it is at the agent's start")
    lists = [name for symbol, name in _LISTS.items() if not symbols.address(symbol)]
    found += [f"this kernel does not tell where its lists of {', '.join(lists)} are"] if lists else []
    return [*found, _WITHOUT]


_WITHOUT = (
    "code of BPF, and of modules without a file below /lib/modules, is compared with what it is when it is first seen"
)
