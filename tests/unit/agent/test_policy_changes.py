"""A changed policy, in an agent that runs: what it judges, what is refused, what stays counted."""

import os
import struct
from pathlib import Path

import pytest
from krie import KernelError
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


def test_programs_know_what_matters_to_the_policy_in_force(setting: Setting) -> None:
    agent = setting.start()
    slot = struct.pack("=I", setting.counts.entries - 1)
    importance = agent._attached.maps["krie_importance"]
    assert importance.get(slot) == bytes(4)
    (setting.policies / "site.rego").write_text((RULE % "R2").replace("log", "kill"))
    agent._reload.look_for_changes()
    agent._reload.finish(PATIENCE_S)
    assert importance.get(slot) != bytes(4)
    assert agent._attached.maps["krie_limits"].get(bytes(4)) is not None


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


def test_what_the_kernel_was_not_told_of_a_policy_is_told_later(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    agent = setting.start()
    in_force = agent._in_force
    told: list[object] = []

    def matter(*arguments: object) -> None:
        told.append(arguments)
        if len(told) == 1:
            raise KernelError("writing a map", 12)

    vars(agent._budgets)["matter"] = matter
    setting.rule("R2")
    agent._reload.begin()
    agent._reload.finish(PATIENCE_S)
    assert "the kernel was not given the kinds that matter to the new policy, and will be" in caplog.text
    for _ in range(2):
        in_force.tick()
    assert len(told) == 2
    assert told[0] == told[1]


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
