"""The C library, for system calls and functions that Python has none for. `ctypes.get_errno()` tells why one failed."""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
