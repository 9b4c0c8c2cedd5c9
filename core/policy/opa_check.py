"""Has OPA's own checker look at the policies, where there is one: KRIe's checks may leave something out.

`krie policy check` takes the `opa` that it finds; the agent takes none but the one that the configuration names.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, PolicyError
from ..trust import require_trusted
from .sources import PolicySources

TIMEOUT_S = 10.0
_DEVELOPERS = Path(".cache/tools/opa")
"""Beside krie.toml: where `make` puts it in a clone of the project."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """It accepts the policies, unless `why` says that it could not be asked."""

    opa: str
    """Its path; empty where there is none."""
    why: str = ""

    def __str__(self) -> str:
        """One line for people."""
        return f"not asked: {self.why}" if self.why else f"accepts the policies ({self.opa})"


def ask_opa(
    configured: str, sources: PolicySources, folder: Path | None = None, timeout_s: float = TIMEOUT_S
) -> Verdict:
    """Run `opa check` on the texts as they were read.

    `configured`: `policy.opa`; `folder`: that of krie.toml, to look for one where none is configured; None: do not.
    Raises `PolicyError` with FILE:LINE:COLUMN for what OPA refuses.
    """
    opa = configured or (_found(folder) if folder is not None else "")
    if not opa:
        return Verdict("", "no opa is installed; name one in policy.opa")
    try:
        require_trusted(Path(opa))
    except ConfigError as error:
        return Verdict(opa, str(error))
    except OSError as error:
        return Verdict(opa, f"{opa}: {error.strerror}")
    with tempfile.TemporaryDirectory(prefix="krie-opa-") as name:
        return _run(opa, sources, Path(name), timeout_s)


def _found(folder: Path) -> str:
    near = folder / _DEVELOPERS
    return str(near) if near.is_file() else shutil.which("opa") or ""


def _run(opa: str, sources: PolicySources, folder: Path, timeout_s: float) -> Verdict:
    for number, file in enumerate(sources.files):
        (folder / f"{number}.rego").write_text(file.text)
    command = [opa, "check", "--format", "json", *(f"{number}.rego" for number in range(len(sources.files)))]
    try:
        with (folder / "errors").open("wb") as errors:
            child = subprocess.Popen(
                command,
                cwd=folder,
                env={"HOME": str(folder), "PATH": os.defpath},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
    except OSError as error:
        return Verdict(opa, f"{opa}: {error.strerror}")
    try:
        code = child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
        child.wait()
        return Verdict(opa, f"{opa}: did not answer within {timeout_s:g} s")
    if code == 0:
        return Verdict(opa)
    with (folder / "errors").open("rb") as written:
        said = written.read(1 << 20).decode(errors="replace")
    problems = _problems(said, sources)
    if not problems:
        return Verdict(opa, f"{opa}: ended with code {code}: {' '.join(said.split())[:200] or 'it said nothing'}")
    raise PolicyError(problems[0], "\n".join(problems[1:]))


def _problems(said: str, sources: PolicySources) -> list[str]:
    """One line an error."""
    try:
        found = []
        for error in json.loads(said)["errors"]:
            place = error["location"]
            file = sources.files[int(str(place["file"]).removesuffix(".rego"))].place
            code = str(error["code"]).removeprefix("rego_").replace("_", " ")
            message = " ".join(str(error["message"]).split())
            found.append(f"{file}:{int(place['row'])}:{int(place['col'])}: OPA refuses this: {message} ({code})")
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return []
    return found
