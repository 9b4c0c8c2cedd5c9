"""What an agent does about probes that do not work, fall silent, miss runs or cannot roam."""

from pathlib import Path

import pytest
from krie import KernelError
from krie.agent.missed import MissedRuns
from krie.errors import PluginError
from krie.kernel.run_statistics import RunStatistics

from .setting import Setting, kinds, probe


@pytest.mark.parametrize("state", ["missing", "silent"])
def test_a_required_probe_that_does_not_work_ends_the_start(tmp_path: Path, state: str) -> None:
    setting = Setting(tmp_path, probe(state, required=True))
    with pytest.raises(PluginError, match=f"probe x is {state} and required"), setting.stack:
        setting.start()
    assert setting.detached


@pytest.mark.parametrize("state", ["alive", "attached"])
def test_a_required_probe_that_works_is_told(tmp_path: Path, state: str) -> None:
    setting = Setting(tmp_path, probe(state, required=True))
    with setting.stack:
        lines = setting.journal(setting.start())
    assert kinds(lines) == ["krie.probe", "krie.started"]
    assert lines[0]["event"]["state"] == state


def test_a_probe_that_falls_silent_later_is_told_and_policies_know(tmp_path: Path) -> None:
    setting = Setting(tmp_path, probe("alive"))
    with setting.stack:
        agent = setting.start()
        assert agent._bus.health["probes_not_alive"] == []
        setting.probes.changed = [probe("silent")]
        agent._upkeep.check()
        assert agent._bus.health["probes_not_alive"] == ["sample.x"]
        (told,) = [each for each in setting.journal(agent)[2:] if each["kind"] == "krie.probe"]
    assert told["event"]["state"] == "silent"


def test_a_required_probe_that_is_silenced_later_does_not_end_the_agent(tmp_path: Path) -> None:
    """Or whoever silenced it would have finished."""
    setting = Setting(tmp_path, probe("alive", required=True))
    with setting.stack:
        agent = setting.start()
        setting.probes.changed = [probe("silent", required=True)]
        agent._upkeep.check()
        assert agent.run(0) == "0 s elapsed"
        told = [each["event"]["state"] for each in setting.journal(agent) if each["kind"] == "krie.probe"]
    assert told == ["alive", "silent"]


def test_silenced_probes_are_looked_at_again_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(tmp_path, probe("alive"))
    clock = [1000.0]
    monkeypatch.setattr("krie.agent.probe_watch.time.monotonic", lambda: clock[0])
    with setting.stack:
        agent = setting.start()
        rearmed: list[float] = []
        monkeypatch.setattr(agent._enforcing.guarding, "rearm", lambda _: rearmed.append(clock[0]))
        setting.probes.changed = [probe("silent")]
        agent._upkeep.check()
        for _ in range(40):
            clock[0] += 1
            agent._upkeep.beat()
        assert rearmed == [1000, 1002, 1006, 1014, 1030]
        setting.probes.changed = [probe("alive")]
        agent._upkeep.check()
        clock[0] += 100
        agent._upkeep.beat()
        assert len(rearmed) == 5


def test_runs_that_were_left_out_are_told_and_known(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    agent = setting.start()
    missed = [0]
    counted = MissedRuns({"sample_x": 5}, lambda _: RunStatistics("sample_x", 0, 0, missed[0]))
    vars(agent._missed).update(vars(counted))
    agent._upkeep.check()
    missed[0] = 3
    agent._upkeep.check()
    assert agent._bus.health["missed"] == 3

    def gone(_: int) -> RunStatistics:
        raise KernelError("asking for a program's statistics", 9)

    vars(agent._missed).update(_statistics=gone)
    agent._upkeep.check()
    assert "runs that the kernel left out are not counted" in caplog.text
    assert kinds(setting.journal(agent)) == ["krie.started", "krie.missed"]


def test_programs_that_cannot_roam_are_named(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    agent = setting.start()
    setting.stuck = {"sample.x": "no place"}
    agent._upkeep.roam()
    assert "probe sample.x stays where it was: no place" in caplog.text
