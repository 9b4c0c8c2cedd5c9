"""Harmless operations of the agent's own that make every program of a probe run."""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress
from pathlib import Path

_SYS_BPF, _SYS_PTRACE, _SYS_VM_READ, _SYS_VM_WRITE = 321, 101, 310, 311  # x86-64
_PTRACE_TRACEME = 0
_NO_SUCH_COMMAND = 0xFFFF
_libc = ctypes.CDLL(None, use_errno=True)


def ptrace() -> None:
    """A child of the agent's asks to be traced, and the agent opens and touches the child's memory.

    What it reads and writes there lies at an address that nobody has. Raises `OSError`.
    """
    ready, tell = os.pipe2(os.O_CLOEXEC)
    wait, done = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.close(done)
            _libc.syscall(_SYS_PTRACE, _PTRACE_TRACEME, 0, 0, 0)
            os.write(tell, b"\0")
            os.read(wait, 1)
        finally:
            os._exit(0)
    try:
        os.close(tell)
        os.close(wait)
        os.read(ready, 1)
        nowhere = ctypes.create_string_buffer(struct.pack("=QQ", 0, 1))
        for call in (_SYS_VM_READ, _SYS_VM_WRITE):
            _libc.syscall(call, child, nowhere, 1, nowhere, 1, ctypes.c_ulong(0))
        with suppress(PermissionError), open(f"/proc/{child}/mem", "rb"):
            pass
    finally:
        os.close(done)
        os.close(ready)
        os.waitpid(child, 0)


def bpf() -> None:
    """Ask for a command that no kernel has; it is refused after security modules were asked."""
    attributes = ctypes.create_string_buffer(8)
    _libc.syscall(_SYS_BPF, _NO_SUCH_COMMAND, ctypes.byref(attributes), len(attributes))


def sysctl() -> None:
    """Read a sysctl: the program runs for reads too. Raises `OSError`."""
    Path("/proc/sys/kernel/ostype").read_bytes()
