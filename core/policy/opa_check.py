"""Has OPA's own checker look at the policies, where there is one: KRIe's checks may leave something out.

`krie policy check` takes the `opa` that it finds; the agent takes none but the one that the configuration names.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import PolicyError
from .sources import PolicySources
from .tool import ToolError, find, run

TIMEOUT_S = 10.0


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
    opa = configured or (find("opa", folder) if folder is not None else "")
    if not opa:
        return Verdict("", "no opa is installed; name one in policy.opa")
    with tempfile.TemporaryDirectory(prefix="krie-opa-") as name:
        try:
            return _run(opa, sources, Path(name), timeout_s)
        except ToolError as error:
            return Verdict(opa, str(error))


def _run(opa: str, sources: PolicySources, folder: Path, timeout_s: float) -> Verdict:
    for number, file in enumerate(sources.files):
        (folder / f"{number}.rego").write_text(file.text)
    command = [opa, "check", "--format", "json", *(f"{number}.rego" for number in range(len(sources.files)))]
    answer = run(command, folder, timeout_s)
    if answer.code == 0:
        return Verdict(opa)
    problems = _problems(answer.errors.decode(errors="replace"), sources)
    if not problems:
        return Verdict(opa, answer.failure(opa))
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
