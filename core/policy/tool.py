"""Programs of others that look at policies: found, run within limits, and never trusted with more than text."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..trust import require_trusted

_DEVELOPERS = Path(".cache/tools")
"""Beside krie.toml: where `make` puts them in a clone of the project."""
_MOST_BYTES = 16 << 20
"""That it may write to a file."""


class ToolError(Exception):
    """It could not be asked. The message says which program, and why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How it ended, and what it wrote."""

    code: int
    output: bytes
    errors: bytes

    def failure(self, program: str) -> str:
        """What to tell of an answer that makes no sense."""
        said = " ".join((self.errors or self.output)[:4096].decode(errors="replace").split())[:200]
        return f"{program}: ended with code {self.code}: {said or 'it said nothing'}"


def find(name: str, folder: Path) -> str:
    """The program beside the configuration in `folder`, or in PATH; empty where there is none."""
    near = folder / _DEVELOPERS / name
    return str(near) if near.is_file() else shutil.which(name) or ""


def run(command: Sequence[str], folder: Path, timeout_s: float) -> Answer:
    """Run a program in a folder, which it may fill. Its home is that folder, and it gets nothing of the environment.

    Raises `ToolError` for one that others could change, that cannot be run, or takes too long.
    """
    program = command[0]
    try:
        require_trusted(Path(program))
    except ConfigError as error:
        raise ToolError(str(error)) from error
    except OSError as error:
        raise ToolError(f"{program}: {error.strerror}") from error
    output, errors = folder / ".output", folder / ".errors"
    try:
        with output.open("wb") as out, errors.open("wb") as err:
            child = subprocess.Popen(
                command,
                cwd=folder,
                env={"HOME": str(folder), "PATH": os.defpath},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
    except OSError as error:
        raise ToolError(f"{program}: {error.strerror}") from error
    try:
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (_MOST_BYTES, _MOST_BYTES))
        code = child.wait(timeout_s)
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{program}: did not answer within {timeout_s:g} s") from error
    finally:
        if child.returncode is None:
            os.killpg(child.pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
            child.wait()
    return Answer(code, output.read_bytes(), errors.read_bytes())
