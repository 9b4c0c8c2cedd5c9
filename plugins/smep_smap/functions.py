"""The functions that are watched: where an attacker who controls what the kernel executes next goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from krie import system_call

PROCESS, ANY = "process", "any"
"""In which context a function runs. In a process's it is always on the process's own kernel stack."""
FIRST_CONFIGURED = 32
MOST_CONFIGURED = 16
_SYS_SETUID, _SYS_FACCESSAT, _SYS_SETFSUID, _SYS_SETNS = 105, 269, 122, 308  # x86-64
_AT_FDCWD = -100
_CLONE_NEWUTS = 0x04000000
_NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the kernel."""

    name: str
    number: int
    """Stands for it in the kernel and in records; never given to another one."""
    context: str
    canary: Callable[[], None] | None = None
    """What makes the agent call it; None where nothing harmless does on every kernel."""
    busy: bool = False
    """Ordinary work calls it all the time: it has no traps, each of which takes an exception."""


def _become_whom_we_are() -> None:
    system_call(_SYS_SETUID, os.getuid())


def _ask_for_access() -> None:
    """access(2) as a user whose capabilities differ from the caller's: newer kernels override credentials only then.

    The user of file accesses is this thread's alone, and is set back.
    """
    before = system_call(_SYS_SETFSUID, _NOBODY)
    try:
        system_call(_SYS_FACCESSAT, _AT_FDCWD, b"/", os.R_OK)
    finally:
        system_call(_SYS_SETFSUID, before)


def _enter_own_namespace() -> None:
    """Enter the namespaces that this process is in. Raises `OSError`."""
    namespace = os.open("/proc/thread-self/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
    try:
        system_call(_SYS_SETNS, namespace, _CLONE_NEWUTS)
    finally:
        os.close(namespace)


FUNCTIONS = (
    Function("commit_creds", 1, PROCESS, _become_whom_we_are),
    Function("prepare_kernel_cred", 2, PROCESS),
    Function("override_creds", 3, PROCESS, _ask_for_access, busy=True),  # some 50 times an exec on overlayfs
    Function("call_usermodehelper_exec", 4, ANY),  # also from softirqs, where nobody waits for the helper
    Function("set_memory_x", 5, PROCESS),
    Function("set_memory_rw", 6, PROCESS),
    Function("set_memory_ro", 7, PROCESS),
    Function("switch_task_namespaces", 8, PROCESS, _enter_own_namespace),
    Function("write_enabled_file_bool", 9, PROCESS),  # behind the file kprobes/enabled
)
NAMES: Mapping[int, str] = {each.number: each.name for each in FUNCTIONS}
"""Those that are always watched; what is configured has numbers from `FIRST_CONFIGURED` on, and no name here."""


def probed(configured: Mapping[str, str]) -> tuple[Function, ...]:
    """All functions that are watched. `configured`: further names, each with the context that it runs in."""
    further = (
        Function(name, FIRST_CONFIGURED + index, context)
        for index, (name, context) in enumerate(sorted(configured.items()))
    )
    return (*FUNCTIONS, *further)
