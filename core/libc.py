"""The C library, for system calls and functions that Python has none for. `ctypes.get_errno()` tells why one failed."""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
_syscall = libc["syscall"]  # our own: what is set of `libc.syscall` is set for all who call it
_syscall.restype = ctypes.c_long


def system_call(number: int, *arguments: object) -> int:
    """Make a system call that Python has no function for, by its number.

    Arguments are numbers, bytes, None for no address, and what `ctypes` has memory in: buffers, arrays, `byref(...)`.
    Returns what the kernel does: where it refuses, the error's number, and that negative (`-errno.EPERM`).
    """
    result: int = _syscall(*(ctypes.c_long(each) if isinstance(each, int) else each for each in (number, *arguments)))
    return result if result >= 0 else -ctypes.get_errno()
