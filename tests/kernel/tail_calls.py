"""Takes away, for a while, the programs that an agent's programs go on to."""

import ctypes
import os
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from krie.kernel import bpf
from krie.testing.patience import wait_for

from .descriptors import descriptions

_PROG_ARRAY = 3
_SYS_BPF, _PROG_GET_FD_BY_ID = 321, 13
_SYS_PIDFD_GETFD = 438
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def slots_emptied(tgid: int) -> Iterator[None]:
    """Have element 0 of every BPF_PROG_ARRAY that a process holds be empty, and fill it again at the end.

    The process is stopped for as long: an agent puts its programs back as soon as it sees that they were taken.
    """
    programs = {}
    process = os.pidfd_open(tgid)
    try:
        for descriptor, each in descriptions(tgid).items():
            if each.get("map_type") == str(_PROG_ARRAY):
                array = _got(_libc.syscall(_SYS_PIDFD_GETFD, process, descriptor, 0))
                if (number := bpf.lookup(array, bytes(4), 4)) is not None:
                    programs[array] = _program(number)
                else:
                    os.close(array)
        assert programs
        signal.pidfd_send_signal(process, signal.SIGSTOP)
        wait_for(lambda: ") T " in Path(f"/proc/{tgid}/stat").read_text())
        for array in programs:
            bpf.delete(array, bytes(4))
        yield
    finally:
        for array, program in programs.items():
            bpf.update(array, bytes(4), struct.pack("=I", program))
            os.close(array)
            os.close(program)
        signal.pidfd_send_signal(process, signal.SIGCONT)
        os.close(process)


def _program(number: bytes) -> int:
    attributes = ctypes.create_string_buffer(number, 16)
    return _got(_libc.syscall(_SYS_BPF, _PROG_GET_FD_BY_ID, ctypes.byref(attributes), 16))


def _got(descriptor: int) -> int:
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor
