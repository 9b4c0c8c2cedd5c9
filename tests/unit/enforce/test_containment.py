"""What containment's programs counted, as the agent takes it."""

from krie.enforce.containment import NAME, Refusals, containment_sensor, refused_operations, take_refusals
from krie.events.identity import Key
from krie.events.operations import OPERATIONS
from krie.plugin.report import ProbeReport

from ..kernel_side import KernelSide

ONE, OTHER = Key(41, 7 * 10**9), Key(42, 8 * 10**9)


def test_each_refusal_is_told_once() -> None:
    kernel = KernelSide()
    kernel.refused(ONE, 1, 3, rule=9)
    kernel.refused(OTHER, 33, 1)
    counts = kernel.maps["containment_counts"]
    assert set(take_refusals(counts)) == {Refusals(ONE, 1, 3, 9), Refusals(OTHER, 33, 1, 0)}
    assert list(take_refusals(counts)) == []
    kernel.refused(ONE, 1, 2, rule=9)
    assert list(take_refusals(counts)) == [Refusals(ONE, 1, 2, 9)]


def test_what_is_refused_while_they_are_taken_is_told_with_the_next() -> None:
    kernel = KernelSide()
    kernel.refused(ONE, 1, 3)
    taking = take_refusals(kernel.maps["containment_counts"])
    assert next(taking).count == 3
    kernel.refused(ONE, 1, 5)
    assert list(taking) == []
    assert [each.count for each in take_refusals(kernel.maps["containment_counts"])] == [5]


def test_only_what_is_proven_to_be_refused_counts_as_guarded() -> None:
    sensor = containment_sensor()
    states = dict(zip((each.name for each in sensor.probes), ["alive", "silent", "missing", "attached"], strict=False))
    reports = [
        ProbeReport(plugin, each, each.alternatives[0], states.get(each.name, "alive"), {})
        for plugin in (NAME, "other")
        for each in sensor.probes
    ]
    found = refused_operations(reports)
    assert len(found) == len(OPERATIONS) - 3
    assert {each.plugin for each in found} == {NAME}
    assert {each.probe.name for each in found} < set(OPERATIONS.values())  # without the inheritance
