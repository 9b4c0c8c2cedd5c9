"""Features that tests may need. Each is tried or looked at; a kernel's version is never asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from ..kernel.features import Features
from ..kernel.program import AttachType

MODULE_VARIABLE = "KRIE_LAB_MODULE"
"""Names the test module's file, which `krie lab run --module` builds."""
SAMPLES_VARIABLE = "KRIE_LAB_SAMPLES"
"""Names the folder of the kernel's own samples, built, that `tests/kernel/test_benign.py` loads."""
RESULTS_VARIABLE = "KRIE_LAB_RESULTS"
"""Set in every guest of `krie lab run`: where to leave results; empty without --results."""
COMPILED_VARIABLE = "KRIE_LAB_COMPILED"
"""Names a folder of programs that were compiled elsewhere for this kernel: `agent.compiled_dir` of tests' agents."""
_GETPID_OF_32_BIT = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")  # mov $20, %eax; int $0x80; ret
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
"""


def compiled_dir() -> str:
    """The folder that `COMPILED_VARIABLE` names, for an agent's configuration; empty where there is none."""
    return os.environ.get(COMPILED_VARIABLE, "")


def why_missing(name: str, features: Features) -> str:
    """Why this machine lacks a feature; empty where it has it. Raises `ValueError` for an unknown name."""
    if name in list(AttachType):
        return features.refused.get(AttachType(name), "")
    if name not in _OTHERS:
        raise ValueError(f"no feature is named {name!r}; known are {', '.join((*AttachType, *_OTHERS))}")
    return _OTHERS[name]()


def _error_injection() -> str:
    has = Path("/sys/kernel/debug/error_injection/list").exists()
    return "" if has else "the kernel is built without error injection, or debugfs is not mounted"


def _ia32() -> str:
    done = subprocess.run([sys.executable, "-IS", "-c", _GETPID_OF_32_BIT], capture_output=True, check=False)
    return "" if done.returncode == 0 else "the kernel runs no 32-bit system calls"


def _test_module() -> str:
    return "" if os.environ.get(MODULE_VARIABLE) else f"${MODULE_VARIABLE} names no module; see krie lab run --module"


def _guest() -> str:
    return "" if RESULTS_VARIABLE in os.environ else "this is not a guest of the lab, but a machine that others use"


_OTHERS: Mapping[str, Callable[[], str]] = {
    "error_injection": _error_injection,
    "guest": _guest,
    "ia32": _ia32,
    "test_module": _test_module,
}
