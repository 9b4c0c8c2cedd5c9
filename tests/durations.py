"""How long the parts of a guest's tests took: written in the guest, summed up on this machine."""

import json
from collections import Counter
from pathlib import Path

FILE = "durations.jsonl"
"""In the results of a suite."""


def note(results: Path, test: str, phase: str, seconds: float) -> None:
    """Add one part of a test: its setup, call or teardown."""
    with (results / FILE).open("a") as file:
        file.write(json.dumps({"test": test, "phase": phase, "seconds": round(seconds, 2)}) + "\n")


def summary(results: Path, longest: int = 3) -> str:
    """Seconds by phase, and of the tests that took longest; empty where none ran."""
    file = results / FILE
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    phases, tests = Counter[str](), Counter[str]()
    for line in lines:
        phases[line["phase"]] += line["seconds"]
        tests[line["test"].rpartition("/")[2]] += line["seconds"]
    sums = ", ".join(f"{name} {seconds:.0f}" for name, seconds in phases.items())
    return (
        "; ".join([sums, *(f"{name} {seconds:.0f}" for name, seconds in tests.most_common(longest))]) if lines else ""
    )
