"""The tests that lie beside policies, and what an engine makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import PolicyError
from ..policy.snapshot import place_of, policy_files
from ..policy.sources import PolicyFile
from ..trust import read_trusted


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one Rego test."""

    package: str
    name: str
    place: str
    """FILE:LINE"""
    why: str = ""
    """Why it failed; empty where it passed."""

    @property
    def key(self) -> tuple[str, str]:
        """What it is called in both engines."""
        return self.package, self.name


@dataclass(frozen=True, slots=True)
class Run:
    """What one engine made of all tests."""

    engine: str
    results: tuple[Result, ...]
    covered: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Lines that were reached, by file of rules. The embedded engine evaluates all rules of a package that is asked for
    any of them, and reaches more than OPA does."""
    missed: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Lines with an expression that was not."""

    @property
    def failed(self) -> tuple[Result, ...]:
        """Those that did not pass."""
        return tuple(each for each in self.results if each.why)

    @property
    def percent(self) -> float | None:
        """How many of all lines with an expression were reached; None: this is not known, since a test fails in OPA."""
        covered, missed = (sum(map(len, each.values())) for each in (self.covered, self.missed))
        return 100.0 * covered / (covered + missed) if covered + missed else None


def read_tests(folders: Iterable[Path]) -> tuple[PolicyFile, ...]:
    """All `*_test.rego` below the folders. Raises `PolicyError`, `ConfigError`."""
    found = []
    for folder in folders:
        for file in policy_files(folder, tests=True):
            place = place_of(file)
            try:
                found.append(PolicyFile(place, read_trusted(Path(str(file))).decode(), place_of(folder)))
            except UnicodeDecodeError as error:
                raise PolicyError(f"{place}: is not UTF-8: byte {error.start}") from None
    return tuple(found)


def differences(one: Run, other: Run) -> list[str]:
    """Tests that pass in one engine only, or that only one knows."""
    passed = [{each.key: not each.why for each in run.results} for run in (one, other)]
    return [
        f"{package}.{name}: {one.engine} {_word(passed[0].get(key))}, {other.engine} {_word(passed[1].get(key))}"
        for key in sorted(passed[0].keys() | passed[1].keys())
        if passed[0].get(key) != passed[1].get(key)
        for package, name in (key,)
    ]


def _word(passed: bool | None) -> str:
    return {True: "passes", False: "fails", None: "has no such test"}[passed]
