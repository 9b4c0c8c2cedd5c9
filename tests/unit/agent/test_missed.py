"""What the kernel left out is told once."""

from krie.agent.missed import MissedReport, MissedRuns
from krie.kernel.run_statistics import RunStatistics


def test_only_what_is_new_is_reported() -> None:
    missed = {3: 0, 4: 2}
    runs = MissedRuns({"s_a": 3, "s_b": 4}, lambda descriptor: RunStatistics("", 0, 0, missed[descriptor]))
    assert list(runs.look()) == [MissedReport("s_b", 2, 2)]
    assert list(runs.look()) == []
    missed.update({3: 1, 4: 7})
    assert list(runs.look()) == [MissedReport("s_a", 1, 1), MissedReport("s_b", 5, 7)]
    assert runs.total == 8
