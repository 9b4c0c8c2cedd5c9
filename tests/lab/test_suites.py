"""The kernel tests on an old and on a current stock kernel. `make test-kernels` has the others."""

from dataclasses import replace
from typing import Any

import pytest
from krie.testing.lab import boot

from . import suite


@pytest.mark.parametrize("label", ["debian-5.10", "debian-6.12"])
def test_on_a_stock_kernel(label: str) -> None:
    wanted = next(each for each in suite.SUITES if each.label == label)
    outcome = suite.run(wanted)
    found = suite.findings(wanted)
    said = (wanted.results / "output").read_text(errors="replace")
    assert suite.passed(outcome, found), "\n".join([*found.failed, said[-20_000:], *outcome.console])
    probes: dict[str, dict[str, Any]] = {each["name"]: each for each in found.doctor["probes"]}
    assert {each["state"] for each in probes.values()} == {"alive"}
    taken = {name: each["alternative"] for name, each in probes.items()}
    assert taken["runtime_integrity.ptrace"] == taken["runtime_integrity.bpf"] == wanted.alternative
    assert taken["runtime_integrity.sysctl_write"] == "cgroup_sysctl"
    contained = found.doctor["containment"]
    assert contained["refused"] == contained["of"] == 18
    assert {each["alternative"] for each in contained["probes"]} == {wanted.alternative, "raw_tracepoint"}


def test_the_table_has_a_row_a_probe() -> None:
    probe = {"name": "p.a", "alternative": "lsm", "state": "alive", "can": ["kill", "refuse"]}
    contained = {"refused": 1, "of": 2, "probes": [{"alternative": "lsm"}, {"alternative": None}]}
    probes = [probe, {**probe, "name": "p.b", "alternative": None}]
    doctor = {"kernel": {"release": "9.9"}, "probes": probes, "containment": contained}
    found = suite.Findings(suite.SUITES[0], doctor, 5, ("t::x",), 1)
    assert suite.table([found]).splitlines() == [
        "| probe | debian-5.10<br>9.9 |",
        "| --- | --- |",
        "| `p.a` | lsm, alive (kill, refuse) |",
        "| `p.b` | alive |",
        "| poison: guarded operations refused | 1 of 2, lsm |",
        "| tests passed | 3 of 5, 1 skipped |",
    ]


def test_only_what_ran_and_did_not_fail_has_passed() -> None:
    exited = boot.Outcome(boot.End.EXITED, 0, (), 1.0)
    found = suite.Findings(suite.SUITES[0], {}, 5, ())
    assert suite.passed(exited, found)
    assert not suite.passed(replace(exited, end=boot.End.LOST), found)
    assert not suite.passed(replace(exited, status=1), found)
    assert not suite.passed(exited, replace(found, failed=("t::x",)))
    assert not suite.passed(exited, replace(found, tests=0))
