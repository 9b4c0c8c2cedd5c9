"""What the bench reads out of the kernel's function_graph tracer, and how it counts it."""

from __future__ import annotations

import pytest

from ..bench.graph import Call, busy_s, elapsed_s, parse

TRACE = """\
# tracer: function_graph
#
#     TIME        TASK/PID         DURATION                  FUNCTION CALLS
#      |          |    |            |   |                     |   |   |   |
   100.000000 |  bash-10         |             |  /* sched_process_fork: comm=sh pid=10 child_comm=sh child_pid=11 */
   100.500000 |  sh-11           |             |  /* sched_process_exec: filename=/bin/krie pid=11 old_pid=11 */
   101.500000 |  krie-a gent-11    |               |  unregister_kprobe() {
   101.600000 |  krie-a gent-11    |   250000.0 us |    synchronize_rcu();
 ------------------------------------------
   101.900000 |  <...>-99          |     7.125 us  |  synchronize_rcu();
   102.000000 |  krie-a gent-11    |   500000.2 us |  } /* unregister_kprobe */
   102.100000 |  krie-a gent-11    |               |  /* sched_process_fork: comm=a pid=11 child_comm=a child_pid=12 */
   103.000000 |  a-12              |     1000 us   |  bpf_check();
"""


def test_calls_of_a_family_are_those_of_all_that_descend_from_its_root() -> None:
    trace = parse(TRACE.splitlines())
    assert [(each.function, each.task) for each in trace.of_family(11)] == [
        ("synchronize_rcu", 11),
        ("unregister_kprobe", 11),
        ("bpf_check", 12),
    ]
    assert {each.task for each in trace.calls} - {each.task for each in trace.of_family(10)} == {99}


def test_programs_that_tasks_executed_are_told() -> None:
    assert parse(TRACE.splitlines()).execs == ((100.5, 11),)


def test_a_leaf_is_told_at_its_start_and_any_other_call_at_its_end() -> None:
    leaf, _, nested, last = parse(TRACE.splitlines()).calls
    assert (leaf.start, leaf.end) == pytest.approx((101.6, 101.85))
    assert (nested.start, nested.end) == pytest.approx((101.5, 102.0), abs=1e-6)
    assert last.end - last.start == pytest.approx(0.001)


def test_each_moment_counts_once_of_a_task_or_of_all() -> None:
    calls = [Call("a", 1, 0, 5), Call("b", 1, 1, 2), Call("c", 1, 4, 6), Call("d", 1, 10, 11), Call("e", 2, 0, 3)]
    assert busy_s(calls) == pytest.approx(5 + 1 + 1 + 3)
    assert elapsed_s(calls) == pytest.approx(6 + 1)
