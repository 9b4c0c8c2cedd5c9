"""Runs the tests beside policies by `opa test`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import PolicyError
from ..policy.sources import PolicyFile, PolicySources
from ..policy.tool import ToolError, run
from .rego_tests import Result, Run

_TIMEOUT_S = 120.0


def run_opa(opa: str, sources: PolicySources, tests: Sequence[PolicyFile]) -> Run:
    """All tests by `opa test`; `opa`: its path. Raises `PolicyError` where it cannot run them."""
    files = (*sources.files, *tests)
    with tempfile.TemporaryDirectory(prefix="krie-opa-") as name:
        folder = Path(name)
        for number, file in enumerate(files):
            (folder / f"{number}.rego").write_text(file.text)
        (folder / "data.json").write_text(json.dumps(sources.data))
        told = _opa(opa, folder, "--format", "json", "--verbose")
        if not isinstance(told, list | None):
            raise PolicyError(f"{opa}: test: its answer has another shape than that of OPA 1.22")
        failed = any(each.get("fail") or "error" in each for each in told or () if isinstance(each, dict))
        report = {"files": {}} if failed else _opa(opa, folder, "--format", "json", "--coverage")  # it gives none then
    places = {f"{number}.rego": file.place for number, file in enumerate(files)}
    try:
        results = [
            Result(
                each["package"].removeprefix("data."),
                each["name"],
                f"{places[each['location']['file']]}:{each['location']['row']}",
                _why(each),
            )
            for each in sorted(told or (), key=lambda each: (each["location"]["file"], each["location"]["row"]))
            if not each.get("skip")
        ]
        own = range(len(sources.files))
        lines = {
            kind: {
                places[f"{number}.rego"]: frozenset(
                    row
                    for each in report["files"].get(f"{number}.rego", {}).get(kind, ())
                    for row in range(each["start"]["row"], each["end"]["row"] + 1)
                )
                for number in own
            }
            for kind in ("covered", "not_covered")
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise PolicyError(f"{opa}: test: its answer has another shape than that of OPA 1.22: {error!r}") from None
    return Run("opa", tuple(results), lines["covered"], lines["not_covered"])


def _why(result: Mapping[str, Any]) -> str:
    if "error" in result:
        return " ".join(str(result["error"]).split())[:200]
    return "is not true" if result.get("fail") else ""


def _opa(opa: str, folder: Path, *options: str) -> Any:
    try:
        answer = run([opa, "test", ".", *options], folder, _TIMEOUT_S)
    except ToolError as error:
        raise PolicyError(str(error)) from None
    try:
        return json.loads(answer.output)
    except ValueError:
        raise PolicyError(answer.failure(f"{opa} test")) from None
