"""What can be done about events of a kind."""

import os
from pathlib import Path

import pytest
from krie import Alternative, AttachType, Enforcement, Event, Probe, Program
from krie.plugin.report import ProbeReport
from krie.testing.events import build

from ...policy.sample import Sample
from ..enforcing import OTHER, Setting, all_logs, debugfs_with_kprobes, decision  # noqa: F401 - fixtures


def probe(event: type[Event] | None, *can: Enforcement) -> Probe:
    program = Program(AttachType.LSM, "file_open", "sample_x")
    return Probe("x", event, (Alternative("lsm", (program,), can=frozenset(can)),))


@pytest.mark.parametrize(
    ("attached", "can", "done"),
    [
        (True, (Enforcement.REFUSE,), "bound"),
        (True, (Enforcement.KILL,), "failed: the probe cannot refuse here"),
        (False, (Enforcement.REFUSE,), "failed: the probe cannot refuse here"),
    ],
)
def test_what_can_be_done_depends_on_what_is_attached(
    debugfs: Path, attached: bool, can: tuple[Enforcement, ...], done: str
) -> None:
    setting = Setting(debugfs)
    made = probe(Sample, *can)
    setting.armed.probes.reports.append(
        ProbeReport("sample", made, made.alternatives[0] if attached else None, "alive", {})
    )
    setting.started()
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    event = build(Sample, tgid=os.getpid(), start_time=int(stat[19]) * 10_000_000, exe_ino=5)
    assert setting.enforcing.enforcer(event, decision("OTHER")).done == (done,)


def test_what_no_probe_sends_its_plugin_puts_back(debugfs: Path) -> None:
    setting = Setting(debugfs)
    asked: list[str] = []

    def restorer(plugin: str) -> object:
        asked.append(plugin)
        return lambda _: None

    vars(setting.armed.plugins)["restorer"] = restorer
    setting.started()
    event = build(Sample, tgid=77)
    for _ in range(2):
        assert setting.enforcing.enforcer(event, decision("OTHER")).done == ("restored",)
    assert asked == ["sample"]
