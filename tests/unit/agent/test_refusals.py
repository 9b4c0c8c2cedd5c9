"""What programs refused, told."""

from pathlib import Path

from krie.events.enforcement import Contained, Guarded
from krie.events.operations import GUARDED, OPERATIONS

from ..enforcing import ONE, OTHER, Setting, all_logs, debugfs_with_kprobes  # noqa: F401 - fixtures


def test_refusals_are_told_once(debugfs: Path) -> None:
    setting = Setting(debugfs).started()
    rule = 1  # the first of the kernel's rules got the first number
    setting.kernel.refused(ONE, 1, 3, rule)
    setting.kernel.refused(OTHER, 33, 1)
    setting.kernel.refused(OTHER, 63, 1)  # a number that nothing has
    told = setting.enforcing.tick()
    assert sorted(each.NAME for each, _ in told) == ["krie.contained", "krie.guarded"]
    by_class = dict(told)
    name = by_class[Contained]["rule"]
    assert name in ("KILLS", "REFUSES")
    assert by_class[Contained] == {
        "contained_tgid": ONE.tgid,
        "contained_start_time": ONE.start_time,
        "count": 3,
        "operation": OPERATIONS[1],
        "rule": name,
    }
    assert by_class[Guarded] == {
        "stranger_tgid": OTHER.tgid,
        "stranger_start_time": OTHER.start_time,
        "count": 1,
        "attempt": GUARDED[33],
    }
    assert setting.enforcing.tick() == []
