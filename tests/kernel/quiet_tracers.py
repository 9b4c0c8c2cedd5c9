"""What traces or replaces functions as everybody may: fprobes, by a BPF program that does nothing, and a live patch."""

import ctypes
import errno
import os
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from krie.kernel import bpf
from krie.kernel.counting import instruction
from krie.testing.patience import wait_for

LIVEPATCH_VARIABLE = "KRIE_LAB_LIVEPATCH"
"""Names the file of the module in tests/kernel/livepatch, built."""
TRACEFS = Path("/sys/kernel/tracing")
_KPROBE_MULTI = 42  # BPF_TRACE_KPROBE_MULTI
_NO_SUCH_ATTACHMENT = (errno.EINVAL, errno.EOPNOTSUPP)


def handlers() -> list[int]:
    """Where the handlers of system calls begin that can be traced."""
    traceable = {line.split()[0] for line in (TRACEFS / "available_filter_functions").read_text().splitlines()}
    found = (line.split() for line in Path("/proc/kallsyms").read_text().splitlines() if " __x64_sys_" in line)
    return sorted({int(address, 16) for address, _, name, *_ in found if name in traceable})


@contextmanager
def fprobes(addresses: Sequence[int], lacks: Callable[[str], NoReturn]) -> Iterator[None]:
    """One at each of these functions: the kernel attaches programs to many functions by fprobe (5.18, 0dcac2725406)."""
    bpf.allow_locked_memory()
    nothing = instruction(0xB7) + instruction(0x95)  # r0 = 0; exit
    program = bpf.prog_load(bpf.ProgramSpec("krie_quiet", bpf.ProgType.KPROBE, _KPROBE_MULTI), nothing)
    try:
        places = (ctypes.c_uint64 * len(addresses))(*addresses)
        attributes = struct.pack("=IIII", program, 0, _KPROBE_MULTI, 0)
        attributes += struct.pack("=IIQQQ", 0, len(addresses), 0, ctypes.addressof(places), 0)
        link = bpf.call(bpf.Command.LINK_CREATE, ctypes.create_string_buffer(attributes, len(attributes)))
        if -link in _NO_SUCH_ATTACHMENT:
            lacks("fprobe: this kernel attaches no program to many functions at once")
        assert link > 0, os.strerror(-link)
        try:
            yield
        finally:
            os.close(link)
    finally:
        os.close(program)


@contextmanager
def live_patch(lacks: Callable[[str], NoReturn]) -> Iterator[None]:
    """Of sysfs(2)."""
    file = os.environ.get(LIVEPATCH_VARIABLE)
    if not file or not Path("/sys/kernel/livepatch").exists():
        lacks("livepatch: of the kernel, or the module for it")
    name = Path(file).stem
    state = Path("/sys/kernel/livepatch", name)
    subprocess.run(["insmod", file], check=True)
    try:
        wait_for(lambda: (state / "transition").read_text() == "0\n")  # each process has come to the patched function
        yield
    finally:
        (state / "enabled").write_text("0")
        wait_for(lambda: not state.exists())
        subprocess.run(["rmmod", name], check=True)
