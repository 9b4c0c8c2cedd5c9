"""Runs the tests beside policies in the embedded engine, in a process with limits.

The engine gets each package as one module: with several, definitions of a rule that is read through an import of its
package do not find helpers of their own file (regorus 0.13), and nearly every test reads `rules` so.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from functools import partial

import regorus

from ..child import ChildEnded, Link, forked, limit_memory, limit_time
from ..config import PolicyConfig
from ..errors import PolicyError
from ..opa.entry_points import package_of
from ..policy.regorus_errors import as_policy_error
from ..policy.sources import PolicyFile, PolicySources
from .rego_tests import Result, Run

_TEST = re.compile(r"^(?P<name>test_\w+)\b", re.MULTILINE)
_IMPORT = re.compile(r"^import[ \t]+(?P<what>[^\n#]+?)[ \t]*(?:#[^\n]*)?$", re.MULTILINE)
_PACKAGE = re.compile(r"^[ \t]*package\b[^\n]*$", re.MULTILINE)


def run_embedded(sources: PolicySources, tests: Sequence[PolicyFile], limits: PolicyConfig) -> Run:
    """All tests in the embedded engine. Raises `PolicyError` for what does not compile, or takes too much."""
    child = forked(partial(_embedded, sources, tests, limits))
    try:
        answer = child.receive(limits.load_s + 5.0)
    except (ChildEnded, TimeoutError):
        raise PolicyError(f"the tests cannot be run: the process that did {child.end(0.0)}") from None
    child.end()
    if isinstance(answer, str):
        raise PolicyError(answer)
    assert isinstance(answer, Run)
    return answer


def _embedded(sources: PolicySources, tests: Sequence[PolicyFile], limits: PolicyConfig, link: Link) -> None:
    os.environ["RUST_LIB_BACKTRACE"] = "0"
    limit_memory(limits.memory_mib)
    limit_time(limits.load_s)
    try:
        link.send(_run_here(sources, tests))
    except PolicyError as error:
        link.send(str(error))


def _run_here(sources: PolicySources, tests: Sequence[PolicyFile]) -> Run:
    engine = regorus.Engine()
    modules = [_Module(package, files) for package, files in _by_package([*sources.files, *tests]).items()]
    for module in modules:
        try:
            as_policy_error(lambda module=module: engine.add_policy(module.name, module.text))  # type: ignore[misc]
        except PolicyError as error:
            raise PolicyError(module.own_places(str(error))) from None
    as_policy_error(lambda: engine.add_data_json(json.dumps(sources.data)))
    as_policy_error(lambda: engine.set_enable_coverage(True))
    results = []
    for package, name, place in _named(tests):
        engine.set_input_json("{}")
        try:
            answer = as_policy_error(lambda rule=f"data.{package}.{name}": engine.eval_rule_as_json(rule))  # type: ignore[misc]
            why = "" if answer.strip() == "true" else "is not true"
        except PolicyError as error:
            why = next((module.own_places(str(error)) for module in modules if module.name in str(error)), str(error))
        results.append(Result(package, name, place, why))
    report = json.loads(as_policy_error(engine.get_coverage_report_as_json))
    by_name = {module.name: module for module in modules}
    own = {file.place for file in sources.files}
    lines = {
        kind: _by_file(
            ((by_name[each["path"]], each[kind]) for each in report["files"] if each["path"] in by_name), own
        )
        for kind in ("covered", "not_covered")
    }
    return Run("embedded", tuple(results), lines["covered"], lines["not_covered"])


class _Module:
    """The files of a package as one text, each line where it can be found again."""

    def __init__(self, package: str, files: Sequence[PolicyFile]) -> None:
        self.name = f"<{package}>"
        imports = list(dict.fromkeys(each["what"] for file in files for each in _IMPORT.finditer(file.text)))
        _require_one_meaning(imports, files)
        head = [f"package {_head(files[0].text)}", *(f"import {each}" for each in imports)]
        self._places: list[tuple[str, int]] = [("", 0)] * len(head)
        lines = list(head)
        for file in files:
            body = _IMPORT.sub("", _PACKAGE.sub("", file.text, count=1)).split("\n")
            self._places += [(file.place, number) for number in range(1, len(body) + 1)]
            lines += body
        self.text = "\n".join(lines) + "\n"

    def place(self, line: int) -> tuple[str, int]:
        """File and line of a line of the text."""
        return self._places[min(line, len(self._places)) - 1] if line > 0 else ("", 0)

    def own_places(self, message: str) -> str:
        """A message with the file and line of each place in it."""

        def own(match: re.Match[str]) -> str:
            file, line = self.place(int(match["line"]))
            return f"{file}:{line}" if file else match[0]

        return re.sub(rf"{re.escape(self.name)}:(?P<line>\d+)", own, message)


def _head(text: str) -> str:
    return text[: match.end()].rpartition("package")[2].strip() if (match := _PACKAGE.search(text)) else ""


def _require_one_meaning(imports: Iterable[str], files: Sequence[PolicyFile]) -> None:
    meanings: dict[str, str] = {}
    for each in imports:
        target, _, alias = each.partition(" as ")
        name = (alias or target.rpartition(".")[2]).strip()
        if meanings.setdefault(name, target.strip()) != target.strip():
            raise PolicyError(
                f"{files[0].place}:1: files of this package import {meanings[name]} and {target.strip()} by the same "
                f"name, {name}; the embedded engine would take one for the other: rename one"
            )


def _by_package(files: Iterable[PolicyFile]) -> dict[str, list[PolicyFile]]:
    found: dict[str, list[PolicyFile]] = {}
    for file in files:
        package = package_of(file.text)
        if package is None:
            raise PolicyError(f"{file.place}:1: does not begin with its package")
        found.setdefault(".".join(package), []).append(file)
    return found


def _named(tests: Iterable[PolicyFile]) -> list[tuple[str, str, str]]:
    found: dict[tuple[str, str], str] = {}
    for file in tests:
        package = ".".join(package_of(file.text) or ())
        for each in _TEST.finditer(file.text):
            line = file.text.count("\n", 0, each.start()) + 1
            found.setdefault((package, each["name"]), f"{file.place}:{line}")
    return [(*key, place) for key, place in found.items()]


def _by_file(lines: Iterable[tuple[_Module, Iterable[int]]], own: set[str]) -> dict[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for module, numbers in lines:
        for number in numbers:
            file, line = module.place(number)
            if file in own:
                found.setdefault(file, set()).add(line)
    return {file: frozenset(each) for file, each in found.items()}
