"""Compiles in a process of its own, which a crash of the compiler ends, and with it goes all that LLVM holds."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NoReturn

from ..errors import CompileError, ForkError, KernelError, LoaderError
from ..exhaustion import exhausted_in
from ..kernel.btf import Btf
from .compiler import CompilationError, compile_unit
from .messages import Failure
from .object import Object
from .source import Unit

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
"""clang and BCC would take headers and more from what a user has in there."""
_MADE, _REFUSED, _NO_COMPILER = range(3)
_ERROR_LINES = 20


def compile_isolated(unit: Unit, btf: Btf, flags: Sequence[str]) -> Object:
    """Compile a unit. Raises `CompileError`, `KernelError` where there is no compiler, `LoaderError` for a crash."""
    with ExitStack() as stack:
        try:
            result, said = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            tree = stack.enter_context(tempfile.TemporaryDirectory())
        except OSError as error:
            raise KernelError("making a temporary folder", error.errno or 0, "name one by TMPDIR") from error
        try:
            tgid = os.fork()
        except OSError as error:
            raise ForkError("the compiler", error.errno or 0) from error
        if not tgid:
            _compile(unit, btf, flags, Path(tree), result, said)
        status = os.waitstatus_to_exitcode(os.waitpid(tgid, 0)[1])
        text = _all(result).decode(errors="replace")
        diagnostics = [line for line in _all(said).decode(errors="replace").splitlines() if line]
    if status == _MADE:
        return Object.from_json(json.loads(text))
    if status != _MADE and (number := exhausted_in("\n".join(diagnostics))):
        raise KernelError("compiling", number, details="\n".join(diagnostics[-_ERROR_LINES:]))
    if status == _REFUSED:
        raise CompileError(", ".join(unit.sensors), "\n".join(diagnostics or ["no diagnostics"]))
    if status == _NO_COMPILER:
        raise Failure(**json.loads(text)).error(())
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
    raise LoaderError(f"the compiler {how}" + (":" if diagnostics else ""), "\n".join(diagnostics[-_ERROR_LINES:]))


def _all(file: IO[bytes]) -> bytes:
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)


def _compile(unit: Unit, btf: Btf, flags: Sequence[str], tree: Path, result: IO[bytes], said: IO[bytes]) -> NoReturn:
    """The child: it must not return into the parent's code, whatever happens."""
    status = 255
    try:
        for descriptor in (1, 2):
            os.dup2(said.fileno(), descriptor)
        os.environ.clear()
        os.environ.update(_ENVIRONMENT)
        unit.write(tree, btf)
        made = compile_unit(unit.text, tree, flags)
        os.pwrite(result.fileno(), json.dumps(made.to_json()).encode(), 0)
        status = _MADE
    except CompilationError:
        status = _REFUSED
    except KernelError as error:
        os.pwrite(result.fileno(), json.dumps(Failure.of(error).to_json()).encode(), 0)
        status = _NO_COMPILER
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status)
