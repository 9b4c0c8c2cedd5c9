"""The guard and what feeds the agent, as long as the agent runs."""

import struct
from pathlib import Path
from typing import Any, cast

import pytest
from krie.agent.heart import Heart
from krie.decision import Mode
from krie.enforce.self_defence import Held
from krie.events.core_maps import Flags
from krie.events.enforcement import Gap, Guarded

from ..enforcing import Setting, all_logs, debugfs_with_kprobes, now  # noqa: F401 - fixtures


@pytest.mark.parametrize(("state", "guard"), [("missing", True), ("alive", False)])
def test_the_agent_is_guarded_where_that_is_wanted_and_can_be(debugfs: Path, state: str, guard: bool) -> None:
    setting = Setting(debugfs, state=state, guard=guard).started()
    assert Flags.GUARD not in setting.armed.verdicts.flags()
    assert setting.enforcing.status()["guard"] is False
    assert struct.pack("=I", 1) in setting.kernel.content["krie_enforcing"].values()  # and yet enforces


def test_disarmed_kprobes_are_told_once_each_time(debugfs: Path) -> None:
    setting = Setting(debugfs).started()
    assert setting.told(Guarded) == []
    told = []
    for state in ("0", "0", "1", "0"):
        (debugfs / "kprobes/enabled").write_text(f"{state}\n")
        told.append([each["attempt"] for each in setting.told(Guarded)])
    assert told == [["kprobes_off"], [], [], ["kprobes_off"]]


def test_kprobes_that_are_off_are_turned_on_again(debugfs: Path, caplog: pytest.LogCaptureFixture) -> None:
    setting = Setting(debugfs).started()
    (debugfs / "kprobes/enabled").write_text("0\n")
    setting.enforcing.guarding.rearm(str)
    assert (debugfs / "kprobes/enabled").read_text().strip() == "1"
    assert "kprobes were turned on again" in caplog.text


def test_kprobes_are_not_turned_on_where_the_variable_lies(debugfs: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The kernel would count those on ftrace twice, and freeze when the last of them ends."""
    setting = Setting(debugfs).started()
    (debugfs / "kprobes/enabled").write_text("0\n")
    setting.enforcing.guarding.rearm(lambda: "it lies")
    assert (debugfs / "kprobes/enabled").read_text() == "0\n"
    assert "kprobes are not turned on again: it lies" in caplog.text


def test_kprobes_that_the_look_put_right_are_not_turned_on_once_more(
    debugfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting(debugfs).started()
    switch = debugfs / "kprobes/enabled"
    switch.write_text("0\n")
    monkeypatch.setattr(vars(setting.enforcing.guarding)["_guard"], "arm_kprobes", pytest.fail)

    def look() -> str:
        switch.write_text("1\n")
        return ""

    setting.enforcing.guarding.rearm(look)


def test_what_was_attached_again_is_guarded(debugfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(debugfs).started()
    guard = vars(setting.enforcing.guarding)["_guard"]
    monkeypatch.setattr(guard, "_held", lambda: (Held("link", 4711, ""),))
    setting.enforcing.guarding.rearm(str)
    assert setting.kernel.content["containment_own_links"].keys() == {(4711).to_bytes(4, "little")}


def test_folders_that_were_covered_are_told_once_each_time(debugfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(debugfs).started()
    told = []
    for covered in ({Path("/a")}, {Path("/a")}, {Path("/a"), Path("/b")}, set(), {Path("/a")}):
        monkeypatch.setattr(vars(setting.enforcing.guarding)["_guard"], "covered", lambda found=covered: found)
        told.append([each["attempt"] for each in setting.told(Guarded)])
    assert told == [["folders_covered"], [], ["folders_covered"], [], ["folders_covered"]]


def test_what_was_disarmed_is_armed_again(debugfs: Path) -> None:
    setting = Setting(debugfs).started()
    assert setting.told(Guarded) == []
    setting.armed.verdicts.set_flags(Flags(0))
    (told,) = setting.told(Guarded)
    assert told["attempt"] == "disarmed"
    assert Flags.GUARD in setting.armed.verdicts.flags()
    armed: list[bool] = []
    double = cast("Any", setting.armed.sending)
    double.is_on = lambda: bool(armed)
    double.start = lambda: armed.append(True)
    assert [each["attempt"] for each in setting.told(Guarded)] == ["disarmed"]
    assert setting.told(Guarded) == []


def test_records_are_sent_again_whatever_the_mode_until_the_end(debugfs: Path) -> None:
    setting = Setting(debugfs, mode=Mode.OBSERVE).started()
    double = cast("Any", setting.armed.sending)
    double.is_on = lambda: False
    assert [each["attempt"] for each in setting.told(Guarded)] == ["disarmed"]
    setting.enforcing.stop()
    assert setting.told(Guarded) == []


def test_cgroups_that_the_agent_left_are_forgotten(debugfs: Path) -> None:
    """Their addresses may be another cgroup's soon, which is nobody's business."""
    setting = Setting(debugfs).started()
    cgroups = setting.kernel.maps["containment_cgroups"]
    left, here = bytes(7) + b"\1", bytes(7) + b"\2"
    cgroups.set(left, struct.pack("=Q", now() - 1))
    setting.enforcing.guarding._heart = Heart(
        setting.kernel.maps["guard_heart"], lambda: cgroups.set(here, struct.pack("=Q", now()))
    )
    setting.enforcing.tick()
    assert set(setting.kernel.content["containment_cgroups"]) == {here}


def test_a_silence_is_told(debugfs: Path) -> None:
    setting = Setting(debugfs).started()
    beats: list[int] = []
    setting.enforcing.guarding._heart = Heart(
        setting.kernel.maps["guard_heart"], lambda: beats.append(1), lambda: 9 * 10**9
    )
    heart = struct.pack("=7Q", 2 * 10**9, 1, 0, 0, 6 * 10**9, 0, 0)
    setting.kernel.maps["guard_heart"].set(bytes(4), heart)
    (told,) = setting.told(Gap)
    assert (told["state"], told["gap_s"]) == ("frozen", 7)
    assert beats == [1]
