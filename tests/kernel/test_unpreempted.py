"""While the agent is at a map, no ordinary process comes between: kprobes would not run for it."""

import os

import pytest
from krie.kernel.bpf import unpreempted

pytestmark = pytest.mark.once


def scheduled() -> int:
    return os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK


def test_the_thread_is_the_first_to_run_and_then_as_before() -> None:
    with unpreempted():
        assert scheduled() == os.SCHED_FIFO
        with unpreempted():
            pass
        assert scheduled() == os.SCHED_FIFO
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_a_failure_leaves_it_as_before() -> None:
    with pytest.raises(KeyError), unpreempted():
        raise KeyError
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_one_that_may_not_goes_on_as_it_is() -> None:
    child = os.fork()
    if not child:
        os.setuid(65534)
        with unpreempted():
            os._exit(7 if scheduled() == os.SCHED_OTHER else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
