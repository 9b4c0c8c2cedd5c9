"""What the last run of a suite found, and the tables of docs/reference/kernels.md that are made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from krie.testing.lab import boot

from .suites import Suite

COMPILED_ANYWAY = "compiled"
"""File of a suite's results: what the guest compiled, though `units.py` should have had it."""
TEXT = 3000
"""Characters that are shown of a failed test."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a suite's last run found."""

    suite: Suite
    doctor: dict[str, Any]
    tests: int
    failed: tuple[str, ...]
    skipped: int = 0
    why: tuple[str, ...] = ()
    """The end of what each failed test said."""
    compiled: tuple[str, ...] = ()
    """What the guest compiled, though `units.py` should have had it."""
    figures: Mapping[str, str] = field(default_factory=dict)
    """What tests recorded as their properties."""
    day: str = ""
    """When that was."""


def findings(suite: Suite) -> Findings:
    """What its last run found; nothing, where there was none."""
    file = suite.results / "junit.xml"
    if not file.exists():
        return Findings(suite, _doctor(suite.results), 0, ("no test ran",))
    cases, ran = list(ET.parse(file).iter("testcase")), file.stat().st_mtime
    problems = {
        f"{case.get('classname')}::{case.get('name')}": found.text or ""
        for case in cases
        if (found := next((each for each in case if each.tag in ("failure", "error")), None)) is not None
    }
    skipped = sum(case.find("skipped") is not None for case in cases)
    figures = {each.get("name", ""): each.get("value", "") for case in cases for each in case.iter("property")}
    why = tuple(each[-TEXT:] for each in problems.values())
    file = suite.results / COMPILED_ANYWAY
    anyway = tuple(file.read_text().split()) if file.exists() else ()
    day = date.fromtimestamp(ran).isoformat()
    return Findings(suite, _doctor(suite.results), len(cases), tuple(problems), skipped, why, anyway, figures, day)


def passed(outcome: boot.GuestExit, found: Findings) -> bool:
    """Everything ran, nothing failed, and nothing was compiled in the guest but by the tests of compiling."""
    well = outcome.end is boot.End.EXITED and outcome.status == 0
    return well and not found.failed and not found.compiled and found.tests > 0


def compiled_anyway(found: Findings) -> str:
    """What to say of a guest that compiled; nothing of one that did not."""
    return (
        f"the guest compiled {len(found.compiled)} units that tests/lab/units.py does not have"
        if found.compiled
        else ""
    )


def _doctor(results: Path) -> dict[str, Any]:
    file = results / "doctor.json"
    text = file.read_text() if file.exists() else ""
    return dict(json.loads(text)) if text else {}


def table(results: list[Findings]) -> str:
    """Probe by kernel, as Markdown."""
    probes = [each["name"] for each in next((r.doctor for r in results if r.doctor), {"probes": []})["probes"]]
    rows = [["probe", *map(_column, results)]]
    rows.append(["---"] * len(rows[0]))
    for probe in probes:
        rows.append([f"`{probe}`", *(_cell(r.doctor, probe) for r in results)])
    rows.append(["poison: guarded operations refused", *(_poison(r.doctor) for r in results)])
    rows.append(["tests passed", *map(_passed, results)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _column(found: Findings) -> str:
    """Which kernel, and what of KRIe the column is about."""
    of = (found.doctor.get("kernel", {}).get("release", "?"), f"KRIe {found.doctor.get('version', '?')}", found.day)
    return "<br>".join([found.suite.label, *filter(None, of)])


def checks(results: list[Findings]) -> str:
    """How many checks smep_smap made in each work, by kernel, as Markdown."""
    rows = [["work", *(r.suite.label for r in results)]]
    rows.append(["---"] * len(rows[0]))
    for work in dict.fromkeys(name for r in results for name in r.figures):
        rows.append([work, *(r.figures.get(work, "-") for r in results)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _passed(found: Findings) -> str:
    passed = found.tests - len(found.failed) - found.skipped
    return f"{passed} of {found.tests}" + (f", {found.skipped} skipped" if found.skipped else "")


def _poison(doctor: dict[str, Any]) -> str:
    found = doctor.get("containment")
    if found is None:
        return "?"
    by = sorted(
        {each["alternative"] for each in found["probes"] if each["alternative"] not in (None, "raw_tracepoint")}
    )
    return f"{found['refused']} of {found['of']}" + (f", {', '.join(by)}" if by else "")


def _cell(doctor: dict[str, Any], name: str) -> str:
    found = next((each for each in doctor.get("probes", []) if each["name"] == name), None)
    if found is None:
        return "?"
    can = f" ({', '.join(found['can'])})" if found["can"] else ""
    return f"{found['alternative']}, {found['state']}{can}" if found["alternative"] else str(found["state"])
