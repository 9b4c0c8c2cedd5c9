"""What suites say about their last run."""

from dataclasses import replace
from pathlib import Path

import pytest
from krie.testing.lab import boot

from . import findings, suite, suites


def test_the_table_has_a_row_a_probe() -> None:
    probe = {"name": "p.a", "alternative": "lsm", "state": "alive", "can": ["kill", "refuse"]}
    contained = {"refused": 1, "of": 2, "probes": [{"alternative": "lsm"}, {"alternative": None}]}
    probes = [probe, {**probe, "name": "p.b", "alternative": None}]
    doctor = {"version": "0.2", "kernel": {"release": "9.9"}, "probes": probes, "containment": contained}
    found = findings.Findings(suites.SUITES[0], doctor, 5, ("t::x",), 1, day="2026-11-28")
    assert findings.table([found]).splitlines() == [
        "| probe | debian-5.10<br>9.9<br>KRIe 0.2<br>2026-11-28 |",
        "| --- | --- |",
        "| `p.a` | lsm, alive (kill, refuse) |",
        "| `p.b` | alive |",
        "| poison: guarded operations refused | 1 of 2, lsm |",
        "| tests passed | 3 of 5, 1 skipped |",
    ]


def test_figures_are_shown_by_work_and_kernel() -> None:
    found = [findings.Findings(each, {}, 5, ()) for each in suites.SUITES[:2]]
    found = [replace(each, figures={work: f"{work}!"}) for each, work in zip(found, ("su", "sudo"), strict=True)]
    assert findings.checks(found).splitlines()[2:] == ["| su | su! | - |", "| sudo | - | sudo! |"]


def test_what_failed_tells_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "ROOT", tmp_path)
    results = suites.SUITES[0].results
    results.mkdir(parents=True)
    case = '<testcase classname="t" name="{}">{}</testcase>'
    cases = [case.format("ok", ""), case.format("left_out", "<skipped/>")]
    cases += [case.format("bad", "<failure>1 != 2</failure>"), case.format("worse", "<error>no agent</error>")]
    (results / "junit.xml").write_text(f"<testsuites>{''.join(cases)}</testsuites>")
    (results / "compiled").write_text("one\nother\n")
    found = findings.findings(suites.SUITES[0])
    assert (found.failed, found.why) == (("t::bad", "t::worse"), ("1 != 2", "no agent"))
    assert (found.tests, found.skipped) == (4, 1)
    assert findings.compiled_anyway(found) == "the guest compiled 2 units that tests/lab/units.py does not have"


def test_only_what_ran_and_did_not_fail_has_passed() -> None:
    exited = boot.GuestExit(boot.End.EXITED, 0, (), 1.0)
    found = findings.Findings(suites.SUITES[0], {}, 5, ())
    assert findings.passed(exited, found)
    assert not findings.passed(replace(exited, end=boot.End.LOST), found)
    assert not findings.passed(replace(exited, status=1), found)
    assert not findings.passed(exited, replace(found, failed=("t::x",)))
    assert not findings.passed(exited, replace(found, tests=0))
    assert not findings.passed(exited, replace(found, compiled=("one",)))


def test_guests_find_the_bytecode_of_tests_that_they_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    for folder in ("core", "plugins", "policies", "bpf", "tests/kernel"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["kernel"]\n')
    tests = tmp_path / "tests/kernel"
    (tests / "test_here.py").write_text("def test_it(): pass\n")
    (tests / "test_there.py").write_text("import pytest\n@pytest.mark.kernel\ndef test_it(): pass\n")
    assert suite.compile_python("kernel") == ["tests/kernel/test_there.py"]
    assert list((tests / "__pycache__").glob("test_there.*-pytest-*.pyc"))
