"""Derives the callers in a process of its own, while the agent goes on: a start does not wait for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from krie import KernelError

from .derived import Derived

_PROGRAM = (sys.executable, "-I", "-m", "krie.plugins.cfi.derived")
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_OPERATION = "deriving the callers of locked functions"
_SAID = 300


class Memory(Protocol):
    """What is needed of `krie.KernelMemory`."""

    def pieces(self, address: int, size: int) -> Iterable[tuple[int, bytes]]:
        """Memory from an address on, by pieces. Raises `KernelError`."""


class Derivation:
    """One that runs."""

    def __init__(
        self,
        memory: Memory,
        ranges: Sequence[range],
        build_id: str,
        functions: Sequence[str],
        done: Callable[[Derived], None],
        failed: Callable[[Exception], None],
        program: Sequence[str] = _PROGRAM,
    ) -> None:
        """Copy the kernel's code, which takes some 20 ms, and start the process. Raises `KernelError`.

        `ranges`: see `live.layout`. `functions`: those of the configuration. `done` or `failed` is called once, by
        another thread.
        """
        copy = _copy(memory, ranges)
        try:
            self._process = subprocess.Popen(
                program,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
                pass_fds=(copy,),
            )
        except OSError as error:
            raise KernelError(_OPERATION, error.errno or 0) from error
        finally:
            os.close(copy)
        question = {
            "copy": copy,
            "ranges": [(each.start, len(each)) for each in ranges],
            "build_id": build_id,
            "functions": list(functions),
        }
        self._done, self._failed = done, failed
        self._stopped = False
        self._thread = threading.Thread(target=self._wait, args=(json.dumps(question).encode(),), name="krie-cfi")
        self._thread.start()

    def stop(self) -> None:
        """End it, if it still runs: then neither `done` nor `failed` is called."""
        self._stopped = True
        self._process.kill()
        self._thread.join()

    def _wait(self, question: bytes) -> None:
        answer, said = self._process.communicate(question)
        if self._stopped:
            return
        try:
            self._done(_derived(answer, said, self._process.returncode))
        except Exception as error:  # nobody else would hear of it
            self._failed(error)


def _copy(memory: Memory, ranges: Sequence[range]) -> int:
    """A descriptor of a file in memory. Raises `KernelError`."""
    copy = os.memfd_create("krie-code", os.MFD_CLOEXEC)
    try:
        at = 0
        for each in ranges:
            for offset, piece in memory.pieces(each.start, len(each)):
                os.pwrite(copy, piece, at + offset)
            at += len(each)
    except (KernelError, OSError) as error:
        os.close(copy)
        raise error if isinstance(error, KernelError) else KernelError(_OPERATION, error.errno or 0) from error
    return copy


def _derived(answer: bytes, said: bytes, status: int) -> Derived:
    """Raises `KernelError`."""
    if status:
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
        words = " ".join(said.decode(errors="backslashreplace").split())
        raise KernelError(_OPERATION, 0, f"the process {how}" + (f": {words[-_SAID:]}" if words else ""))
    found: dict[str, Any] = json.loads(answer)
    if problem := found.get("problem"):
        raise KernelError(_OPERATION, 0, str(problem))
    return Derived(**found)
