"""The shell of the benign workloads, which run in guests only: that it can be read at all."""

import subprocess

import pytest

from ..kernel.workloads import WORKLOADS, Workload


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda each: each.name)
def test_a_shell_can_read_it(workload: Workload) -> None:
    done = subprocess.run(["/bin/sh", "-n", "-c", workload.command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
