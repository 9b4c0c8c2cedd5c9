"""What regal says of folders of policies: style, and what is likely a bug in any Rego.

It reads the folders themselves, so that a configuration of its own (`.regal/config.yaml`) is honoured. Where there is
none, the rules that contradict how KRIe's policies are made are off.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..policy.snapshot import place_of
from ..policy.tool import Answer, ToolError, run
from .findings import ERROR, REGAL, WARNING, Finding, Place, near

TIMEOUT_S = 120.0
_UNSUITABLE = (
    "directory-package-mismatch",  # folders are the administrator's; packages are `krie.<name>`
    "unresolved-reference",  # data come from krie.toml, and from .json files
    "external-reference",  # a helper may look at input and data
    "with-outside-test-context",  # a helper of tests may ask the rules, so that each test is one line
)
_NEVER = ("no-defined-entrypoint",)  # the entry point is KRIe's own, which asks every package
_WHILE = "error(s) encountered while linting: "
_LONGEST = 500
_CONFIGURATIONS = (".regal/config.yaml", ".regal.yaml")


def regal_findings(regal: str, folders: Sequence[Path]) -> list[Finding]:
    """What Regal finds in these folders. Raises `ToolError`."""
    off = _NEVER if any(map(configured, folders)) else (*_NEVER, *_UNSUITABLE)
    with tempfile.TemporaryDirectory(prefix="krie-regal-") as name:
        command = [
            regal,
            "lint",
            "--format",
            "json",
            *(f"--disable={each}" for each in off),
            *(str(each.absolute()) for each in folders),
        ]
        answer = run(command, Path(name), TIMEOUT_S)
    try:
        return list(
            _findings(json.loads(answer.output.decode(errors="surrogateescape"))["violations"], str(folders[0]))
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ToolError(_failure(regal, answer)) from error


def _failure(regal: str, answer: Answer) -> str:
    """Why it told nothing: it puts this into JSON, behind what it was about to do."""
    try:
        errors = [" ".join(str(each).split()) for each in json.loads(answer.output or answer.errors)["errors"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return answer.failure(regal)
    told = "; ".join(each.removeprefix(_WHILE) for each in errors)
    return f"{regal}: {told[:_LONGEST]}"


def configured(folder: Path) -> bool:
    """Whether regal finds a configuration for it, which is looked for upwards."""
    real = folder.resolve()
    return any((above / name).exists() for above in (real, *real.parents) for name in _CONFIGURATIONS)


def _findings(violations: list[dict[str, Any]], folder: str) -> Iterator[Finding]:
    """`folder`: where what no file is to blame for is told."""
    for each in violations:
        where, links = each["location"], each.get("related_resources") or []
        file = near(place_of(where.get("file") or folder))
        url = str(links[0]["ref"]) if links else ""
        yield Finding(
            Place(file, max(0, int(where.get("row", 0))), max(0, int(where.get("col", 0)))),
            REGAL,
            f"{each['category']}/{each['title']}",
            " ".join(str(each["description"]).split()),
            f"see {url}" if url else "see regal's manual",
            WARNING if each["level"] == "warning" else ERROR,
            url=url,
        )
