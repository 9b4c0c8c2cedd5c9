"""The kernel tests on an old and on a current stock kernel. `make test-kernels` has the others."""

from typing import Any

import pytest
from krie.testing.lab import boot

from . import suite


@pytest.mark.parametrize("label", ["debian-5.10", "debian-6.12"])
def test_on_a_stock_kernel(label: str) -> None:
    wanted = next(each for each in suite.SUITES if each.label == label)
    result = suite.run(wanted)
    assert result.passed, "\n".join([*result.failed, result.output[-20_000:], *result.outcome.console])
    probes: dict[str, dict[str, Any]] = {each["name"]: each for each in result.doctor["probes"]}
    assert {each["state"] for each in probes.values()} == {"alive"}
    taken = {name: each["alternative"] for name, each in probes.items()}
    assert taken["runtime_integrity.ptrace"] == taken["runtime_integrity.bpf"] == wanted.alternative
    assert taken["runtime_integrity.sysctl_write"] == "cgroup_sysctl"


def test_the_table_has_a_row_a_probe() -> None:
    probe = {"name": "p.a", "alternative": "lsm", "state": "alive", "can": ["kill", "refuse"]}
    ended = boot.Outcome(boot.End.EXITED, 0, (), 1.0)
    doctor = {"kernel": {"release": "9.9"}, "probes": [probe, {**probe, "name": "p.b", "alternative": None}]}
    result = suite.Result(suite.SUITES[0], ended, "", doctor, 5, ("t::x",))
    assert suite.table([result]).splitlines() == [
        "| probe | debian-5.10<br>9.9 |",
        "| --- | --- |",
        "| `p.a` | lsm, alive (kill, refuse) |",
        "| `p.b` | alive |",
        "| tests | 4 of 5 |",
    ]
    assert not result.passed
