"""Something of the machine's is used up: one cause, one text, whoever met it and in whatever words."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

EXHAUSTED: Mapping[int, str] = {
    errno.EMFILE: "this process may not open more files: raise its limit (ulimit -n; LimitNOFILE= of a unit)",
    errno.ENFILE: "this machine may not open more files: raise the sysctl fs.file-max",
    errno.ENOMEM: "no memory is left, of the machine or below a limit (ulimit -v; MemoryMax= of a unit or container)",
    errno.ENOSPC: "no room is left: a file system is full (df, df -i), or what the kernel allots",
    errno.EDQUOT: "no room is left: a quota is used up",
}
"""What is used up, and what to do, by errno."""
NO_PROCESS = "no further process may be started: raise the limit (ulimit -u; TasksMax= of a unit; pids.max)"
_WORDS: Mapping[str, int] = {
    **{os.strerror(number).lower(): number for number in EXHAUSTED},
    "failed to map segment from shared object": errno.ENOMEM,  # of ld.so
    "out of memory": errno.ENOMEM,  # of LLVM
    "bad_alloc": errno.ENOMEM,  # of C++
}


def exhausted_in(text: str) -> int:
    """The errno of what is used up according to a library that only has words for it; 0: nothing."""
    return next((number for words, number in _WORDS.items() if words in text.lower()), 0)


def exhausted(error: BaseException | None) -> int:
    """The same of an exception, or of what it was raised from."""
    while error is not None:
        if isinstance(error, MemoryError):
            return errno.ENOMEM
        number = getattr(error, "errno", None)  # of OSError, and of krie.errors.KernelError
        if isinstance(number, int) and number in EXHAUSTED:
            return number
        if (isinstance(error, ImportError) or (isinstance(error, OSError) and error.errno is None)) and (
            number := exhausted_in(str(error))
        ):
            return number
        error = error.__cause__
    return 0
