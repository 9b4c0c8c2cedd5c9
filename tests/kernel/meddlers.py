"""Ways to another process's memory, of which some change it: each is called with the process's tgid."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ATTACH, _DETACH, _PEEK, _POKE = 16, 17, 1, 4
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def _stack_of(tgid: int) -> int:
    for line in Path(f"/proc/{tgid}/maps").read_text().splitlines():
        if line.endswith("[stack]"):
            return int(line.partition("-")[0], 16)
    raise AssertionError


def _vector(address: int) -> object:
    return (ctypes.c_size_t * 2)(address, 8)


def write_by_descriptor(tgid: int) -> None:
    with open(f"/proc/{tgid}/mem", "wb", buffering=0) as memory:
        os.pwrite(memory.fileno(), bytes(8), _stack_of(tgid))


def write_by_system_call(tgid: int) -> None:
    buffer = ctypes.create_string_buffer(8)
    own, other = _vector(ctypes.addressof(buffer)), _vector(_stack_of(tgid))
    assert _libc.syscall(311, tgid, own, 1, other, 1, ctypes.c_ulong(0)) == 8


def read_it(tgid: int) -> None:
    buffer = ctypes.create_string_buffer(8)
    own, other = _vector(ctypes.addressof(buffer)), _vector(_stack_of(tgid))
    assert _libc.syscall(310, tgid, own, 1, other, 1, ctypes.c_ulong(0)) == 8
    with open(f"/proc/{tgid}/mem", "rb", buffering=0) as memory:
        assert len(os.pread(memory.fileno(), 8, _stack_of(tgid))) == 8
    for name in ("environ", "cmdline", "stat"):
        Path(f"/proc/{tgid}/{name}").read_bytes()


@contextmanager
def _traced(tgid: int) -> Iterator[None]:
    assert _libc.ptrace(_ATTACH, tgid, None, None) == 0
    os.waitpid(tgid, 0)
    yield
    assert _libc.ptrace(_DETACH, tgid, None, None) == 0


def watch(tgid: int) -> None:
    """As strace does."""
    with _traced(tgid):
        _libc.ptrace(_PEEK, tgid, _stack_of(tgid), None)


def poke(tgid: int) -> None:
    with _traced(tgid):
        assert _libc.ptrace(_POKE, tgid, _stack_of(tgid), None) == 0
