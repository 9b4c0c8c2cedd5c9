"""What takes long is done in a process of its own, while the agent goes on: a start does not wait for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
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


class Asked:
    """A process of its own that is asked something, and answers once."""

    def __init__(
        self, operation: str, program: Sequence[str], question: Mapping[str, Any], descriptors: Collection[int] = ()
    ) -> None:
        """Start it. Raises `KernelError`, which says which `operation` failed.

        `question`: what it reads as JSON. `descriptors`: those of which it knows by that.
        """
        self._operation = operation
        with ExitStack() as files:
            file = _file("krie-question", files)  # not by arguments: everybody may read where the kernel lies
            try:
                os.pwrite(file, json.dumps(question).encode(), 0)
                answer = _file("krie-answer", files)  # a pipe would have it wait until it is read
                self._process = subprocess.Popen(
                    program,
                    stdin=file,
                    stdout=answer,
                    stderr=subprocess.PIPE,
                    env=_ENVIRONMENT,
                    pass_fds=tuple(descriptors),
                )
                self._answer = os.fdopen(os.dup(answer), "rb")
            except OSError as error:
                raise KernelError(operation, error.errno or 0) from error

    def answer(self) -> dict[str, Any] | None:
        """What it found, once; None while it runs. Raises `KernelError` where it failed."""
        if self._process.poll() is None:
            return None
        _, said = self._process.communicate()
        with self._answer:
            self._answer.seek(0)
            return _checked(self._operation, self._answer.read(), said, self._process.returncode)

    def stop(self) -> None:
        """End it, if it still runs."""
        self._process.kill()
        self._process.communicate()
        self._answer.close()


class Derivation:
    """A derivation that runs in a process of its own."""

    def __init__(
        self,
        memory: Memory,
        ranges: Sequence[range],
        build_id: str,
        functions: Sequence[str],
        program: Sequence[str] = _PROGRAM,
    ) -> None:
        """Copy the kernel's code, which takes some 20 ms, and start the process. Raises `KernelError`.

        `ranges`: see `live.layout`. `functions`: those of the configuration.
        """
        with ExitStack() as files:
            copy = _file("krie-code", files)
            places = [(each.start, len(each)) for each in ranges]
            question = {"copy": copy, "ranges": places, "build_id": build_id, "functions": list(functions)}
            try:
                _copy(memory, ranges, copy)
            except OSError as error:
                raise KernelError(_OPERATION, error.errno or 0) from error
            self._asked = Asked(_OPERATION, program, question, (copy,))

    def answer(self) -> Derived | None:
        """What it found, once; None while it runs. Raises `KernelError` where it failed."""
        answer = self._asked.answer()
        return Derived(**answer) if answer is not None else None

    def stop(self) -> None:
        """End it, if it still runs."""
        self._asked.stop()


def _file(name: str, files: ExitStack) -> int:
    """A descriptor of a file in memory."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    files.callback(os.close, descriptor)
    return descriptor


def _copy(memory: Memory, ranges: Sequence[range], copy: int) -> None:
    """Raises `KernelError`, `OSError`."""
    at = 0
    for each in ranges:
        for offset, piece in memory.pieces(each.start, len(each)):
            os.pwrite(copy, piece, at + offset)
        at += len(each)


def _checked(operation: str, answer: bytes, said: bytes, status: int) -> dict[str, Any]:
    """Raises `KernelError`."""
    if status:
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
        words = " ".join(said.decode(errors="backslashreplace").split())
        raise KernelError(operation, 0, f"the process {how}" + (f": {words[-_SAID:]}" if words else ""))
    found: dict[str, Any] = json.loads(answer)
    if problem := found.get("problem"):
        raise KernelError(operation, 0, str(problem))
    return found
