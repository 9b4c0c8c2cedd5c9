"""A changed policy, in an agent that runs: what it judges, what is refused, what stays counted."""

import os
import struct
from pathlib import Path

import pytest
from krie import KernelError
from krie.agent.prepared import Prepared
from krie.testing.patience import PATIENCE_S
from krie.tier.candidate import Candidate

from .setting import BATCH, RULE, Records, Setting, kinds


def test_a_changed_policy_judges_only_what_comes_after(setting: Setting) -> None:
    agent = setting.start()
    setting.happens(2)
    setting.rule("R2")
    agent._reload.look_for_changes()
    agent._reload.finish(PATIENCE_S)
    setting.happens(1)
    agent._inbox.drain()
    agent._reload.look_for_changes()  # and not again
    assert not agent._policy_files.loading
    lines = setting.journal(agent)[1:]
    fired = [rule["id"] for each in lines for rule in each["decision"]["rules"] if rule["id"][0] == "R"]
    assert kinds(lines) == ["sample.seen", "sample.seen", "krie.policy", "sample.seen"]
    assert fired == ["R1", "R1", "R2"]


class Importance:
    """What programs are told of the kind that the site's rule is about, while policies change."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.agent = setting, setting.start()
        self.at_swap: list[bool] = []
        self._map = self.agent._attached.maps["krie_importance"]
        self._slot = struct.pack("=I", setting.counts.entries - 1)
        self._take_over = self.agent._enforcing.take_over
        vars(self.agent._enforcing)["take_over"] = self.swap

    @property
    def matters(self) -> bool:
        return self._map.get(self._slot) != bytes(4)

    def swap(self, prepared: Prepared) -> None:
        self.at_swap.append(self.matters)
        self._take_over(prepared)

    def reload(self, name: str, action: str) -> None:
        (self.setting.policies / "site.rego").write_text((RULE % name).replace("log", action))
        self.agent._reload.begin()
        self.agent._reload.finish(PATIENCE_S)

    def fails(self, *, fails: bool = True) -> None:
        """From now on, to write it."""
        change = self.setting.kernel.failing.add if fails else self.setting.kernel.failing.discard
        change(("set", "krie_importance"))

    def fired(self) -> list[str]:
        """Ids of the rules that decide about what happens now."""
        self.setting.happens()
        self.agent._inbox.drain()
        return [each["id"] for each in self.setting.journal(self.agent)[-1]["decision"]["rules"]]


def test_programs_know_what_matters_to_either_policy_while_one_replaces_the_other(setting: Setting) -> None:
    kept = Importance(setting)
    assert not kept.matters
    for name, action in (("R2", "kill"), ("R3", "kill"), ("R4", "log"), ("R5", "log")):
        kept.reload(name, action)
        assert kept.matters == (action == "kill")
    assert kept.at_swap == [True, True, True, False]
    assert kept.agent._attached.maps["krie_limits"].get(bytes(4)) is not None


def test_a_policy_is_refused_where_programs_cannot_be_told_what_matters_to_it(setting: Setting) -> None:
    kept = Importance(setting)
    before = len(os.listdir("/proc/self/fd"))
    kept.fails()
    kept.reload("R2", "kill")
    assert len(os.listdir("/proc/self/fd")) == before
    assert kept.at_swap == []
    assert not kept.matters
    kept.fails(fails=False)
    kept.agent._in_force.tick()
    assert not kept.matters
    assert kept.fired() == ["R1"]
    refused = setting.journal(kept.agent)[-2]["event"]
    assert (refused["state"], "krie_importance" in refused["reason"]) == ("refused", True)


@pytest.mark.parametrize("step", ["prepare", "take_over"])
def test_what_matters_to_a_policy_that_is_refused_is_forgotten(setting: Setting, step: str) -> None:
    kept = Importance(setting)

    def full(_: object) -> None:
        kept.at_swap.append(kept.matters)
        raise KernelError("writing map krie_tables", 12)

    vars(kept.agent._enforcing)[step] = full
    kept.reload("R2", "kill")
    assert kept.at_swap == [True]
    assert not kept.matters
    assert kept.fired() == ["R1"]


def test_what_matters_no_longer_is_forgotten_later_where_that_fails(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Importance(setting)
    kept.reload("R2", "kill")
    kept.fails()
    kept.reload("R3", "log")
    told = "the kernel was not told which kinds no longer matter to the policy, and will be"
    assert caplog.text.count(told) == 1
    kept.agent._in_force.tick()
    assert (kept.matters, caplog.text.count(told)) == (True, 2)
    kept.fails(fails=False)
    kept.agent._in_force.tick()
    assert (kept.matters, caplog.text.count(told)) == (False, 2)
    assert kept.fired() == ["R3"]


def test_records_that_keep_coming_do_not_hold_a_reload_up(setting: Setting) -> None:
    agent = setting.start()
    setting.ring.on_read = lambda: setting.happens(BATCH)
    agent._reload.begin()
    agent._reload.finish(PATIENCE_S)
    assert setting.ring.reads == Records.most_batches


def test_a_wrong_policy_is_refused_and_the_one_before_stays(setting: Setting) -> None:
    agent = setting.start()
    revision = agent._in_force.policy.revision
    (setting.policies / "site.rego").write_text("package krie.site\n\nrules contains")
    agent._reload.look_for_changes()
    agent._reload.finish(PATIENCE_S)
    agent._reload.look_for_changes()
    assert not agent._policy_files.loading
    setting.happens()
    agent._inbox.drain()
    refused, seen = setting.journal(agent)[1:]
    assert (refused["event"]["state"], refused["event"]["revision"]) == ("refused", revision)
    assert "site.rego:3" in refused["event"]["reason"]
    assert [each["id"] for each in seen["decision"]["rules"]] == ["R1"]


def test_a_policy_that_the_kernel_does_not_take_is_refused_and_let_go(setting: Setting) -> None:
    agent = setting.start()
    setting.rule("R2")
    before = len(os.listdir("/proc/self/fd"))

    def full(_: object) -> None:
        raise KernelError("creating map krie_generation", 12)

    vars(agent._enforcing)["prepare"] = full
    agent._reload.look_for_changes()
    agent._reload.finish(PATIENCE_S)
    assert len(os.listdir("/proc/self/fd")) == before
    setting.happens()
    agent._inbox.drain()
    refused, seen = setting.journal(agent)[1:]
    assert (refused["event"]["state"], "ENOMEM" in refused["event"]["reason"]) == ("refused", True)
    assert [each["id"] for each in seen["decision"]["rules"]] == ["R1"]


def test_whatever_fails_behind_the_swap_the_new_policy_decides(setting: Setting) -> None:
    agent = setting.start()
    setting.rule("R2")

    candidates: list[Candidate] = []

    def fail(candidate: Candidate) -> None:
        candidates.append(candidate)
        raise OSError(5, "injected")

    vars(agent._policy_files)["adopt"] = fail
    agent._reload.begin()
    with pytest.raises(OSError, match="injected"):
        agent._reload.finish(PATIENCE_S)
    setting.happens()
    agent._inbox.drain()
    assert [each["id"] for each in setting.journal(agent)[-1]["decision"]["rules"]] == ["R2"]
    (candidate,) = candidates
    assert candidate.evaluator is not None
    candidate.evaluator.close()


def test_an_end_while_a_policy_is_compiled_leaves_nothing(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    setting = Setting(tmp_path)
    with setting.stack:
        agent = setting.start()
        setting.rule("R2")
        agent._reload.begin()
        agent.finish()
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_what_the_memo_remembered_is_counted_over_all_policies(setting: Setting) -> None:
    agent = setting.start()
    for _ in range(2):
        setting.happens(3)
        agent._inbox.drain()
        setting.rule("R2")
        agent._reload.begin()
        agent._reload.finish(PATIENCE_S)
    setting.happens(3)
    agent._inbox.drain()
    assert agent._status.to_json()["remembered"] == agent._in_force.remembered >= 6
