"""The shell of the benign workloads, which run in guests only: that it can be read at all, and names what it lacks."""

import re
import subprocess

import pytest

from ..kernel.workloads import WORKLOADS, Workload


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda each: each.name)
def test_a_shell_can_read_it(workload: Workload) -> None:
    done = subprocess.run(["/bin/sh", "-n", "-c", workload.command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_lacking_has_a_name() -> None:
    said = [each for workload in WORKLOADS for each in re.findall(r"echo ([^;]*) >&2; exit 77", workload.command)]
    assert len(said) > 5
    assert [each for each in said if not re.match(r"[a-z_-]+[a-z0-9_-]*: .", each)] == []
