"""The shipped rules refuse to programs without a name BPF that harms or that nobody read. In guests only."""

import pytest
from krie.testing.agent import RunningAgent

from ..enforcing import Run
from ..tail_calls import slots_emptied
from ..test_triggers import PROGRAM
from .answers import of

pytestmark = pytest.mark.needs("guest", "kprobe")

LOAD = f"{PROGRAM}\nprint(os.getpid(), called(321, 5, buffer, 120))"


@pytest.mark.parametrize(
    ("helper", "padding", "rules"),
    [
        (0, 4200, []),
        (109, 4200, ["BPF002"]),
        (0, 20_000, ["BPF007"]),
        (109, 20_000, ["BPF007"]),
    ],
)
def test_an_unnamed_program_loads_nothing_that_harms_or_was_not_read(
    enforcing: RunningAgent, victim: Run, helper: int, padding: int, rules: list[str]
) -> None:
    tgid, error = map(int, victim(LOAD, str(helper), str(padding)).stdout.split())
    assert error == (1 if rules else 0)
    (line,) = of(enforcing, tgid, "runtime_integrity.bpf")
    assert [each["id"] for each in line["decision"]["rules"]] == ["BPF001", *rules]
    assert (line["decision"]["tier"], line["done"]) == (("kernel", ["refused"]) if rules else ("user", []))


def test_an_unnamed_program_loads_nothing_while_nobody_can_read(enforcing: RunningAgent, victim: Run) -> None:
    """Somebody takes the program that goes on with the scan out of its map."""
    with slots_emptied(enforcing.process.pid):
        tgid, error = map(int, victim(LOAD, "0").stdout.split())
    assert error == 1
    (line,) = of(enforcing, tgid, "runtime_integrity.bpf")
    assert ([each["id"] for each in line["decision"]["rules"]], line["done"]) == (["BPF001", "BPF007"], ["refused"])


def test_a_named_program_loads_what_nobody_reads(enforcing: RunningAgent, named_victim: Run) -> None:
    tgid, error = map(int, named_victim(LOAD, "0", "20000").stdout.split())
    assert error == 0
    (line,) = of(enforcing, tgid, "runtime_integrity.bpf")
    assert ([each["id"] for each in line["decision"]["rules"]], line["done"]) == (["BPF004"], [])
