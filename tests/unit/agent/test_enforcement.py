"""What lives as long as the agent enforces: begin, end, each second, a new policy, administrators, breakers."""

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from krie import Action, KernelError
from krie.agent.enforcement import wanted
from krie.config import Config
from krie.decision import Mode
from krie.enforce.verdicts import Verdict, Verdicts
from krie.events.core_maps import Flags
from krie.events.event import BY_TABLE
from krie.events.identity import Identity, Key
from krie.events.operations import OPERATIONS
from krie.policy.policy import Policy
from krie.processes.executables import Executables
from krie.processes.principal import Principal
from krie.testing.events import build
from krie.tier.candidate import Candidate
from krie.tier.domain import Numbers

from ...policy.sample import Sample
from ...policy.subjects import subject
from ..enforcing import ONE, OTHER, Setting, all_logs, contained, debugfs_with_kprobes, later, now  # noqa: F401 - fixtures
from ..kernel_side import identify


def test_programs_may_act_once_it_has_started(debugfs: Path) -> None:
    setting = Setting(debugfs, poison_s=7)
    assert setting.kernel.content["krie_enforcing"] == {}
    setting.started()
    assert list(setting.kernel.content["krie_enforcing"].values()) == [struct.pack("=I", 0), struct.pack("=I", 1)]
    (poison_ns,) = struct.unpack_from("=Q", setting.kernel.content["krie_settings"][bytes(4)])
    assert poison_ns == 7 * 10**9
    assert setting.kernel.in_force == [True]
    assert setting.enforcing.enforcer.contained == len(OPERATIONS)
    assert Flags.GUARD in setting.armed.verdicts.flags()


def test_where_all_observe_no_program_may_act(debugfs: Path) -> None:
    setting = Setting(debugfs, mode=Mode.OBSERVE).started()
    assert setting.kernel.content["krie_enforcing"] == {}
    assert setting.armed.verdicts.flags() == Flags(0)
    assert setting.kernel.owned() == set()
    assert setting.enforcing.enforcer.contained == 0


def test_where_poison_cannot_hold_it_says_so(debugfs: Path, caplog: pytest.LogCaptureFixture) -> None:
    Setting(debugfs, state="missing").started()
    assert "poison cannot hold here: no guarded operation can be refused (lsm: EPERM)" in caplog.text
    caplog.clear()
    some = Setting(debugfs)
    some.reports[0:3] = contained("silent")[0:3]
    some.armed.probes.reports[0:3] = some.reports[0:3]
    some.started()
    assert f"poison holds for {len(OPERATIONS) - 3} of {len(OPERATIONS)} guarded operations" in caplog.text


def test_what_was_decided_ends_with_the_agent(debugfs: Path) -> None:
    setting = Setting(debugfs).started()
    tables = setting.armed.verdicts
    tables.poison(Verdict(ONE, 0, later(), 1, 1))
    tables.bind(Verdict(OTHER, Sample.KIND, later(), 1, 1))
    tables.bind_host(Verdict(Key(0, 0), 0, later(), 1, 1))
    setting.enforcing.stop()
    assert setting.verdicts == set()
    assert tables.flags() == Flags(0)
    assert tables.host() is None
    assert set(setting.kernel.content["krie_enforcing"].values()) == {struct.pack("=I", 0)}
    assert setting.kernel.in_force == [False]


def test_what_is_over_ends_and_the_rest_stays(debugfs: Path) -> None:
    setting = Setting(debugfs).started()
    tables = setting.armed.verdicts
    tables.poison(Verdict(ONE, 0, now() - 1, 1, 1))
    tables.poison(Verdict(OTHER, 0, later(), 1, 1))
    bound = setting.enforcing.enforcer.bound
    bound.bind(Verdict(ONE, Sample.KIND, later(), 1, 1), Principal("user", 1000))
    bound.bind(Verdict(OTHER, Sample.KIND, now() - 1, 1, 1), Principal("user", 1000))
    tables.bind_host(Verdict(Key(0, 0), 0, later(), 1, 1))
    setting.enforcing.tick()
    assert setting.verdicts == {(OTHER, 0), (ONE, Sample.KIND)}
    assert tables.host() is not None
    tables.bind_host(Verdict(Key(0, 0), 0, now() - 1, 1, 1))
    setting.enforcing.tick()
    assert tables.host() is None
    assert Flags.GUARD in tables.flags()


def test_many_who_are_poisoned_take_a_part_of_the_time(debugfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else who has thousands of processes poisoned keeps the agent from deciding."""
    setting = Setting(debugfs).started()
    walks = 0

    def slow(_: Verdicts) -> Iterator[Verdict]:
        nonlocal walks
        walks += 1
        time.sleep(0.3)
        return iter(())

    monkeypatch.setattr(Verdicts, "poisoned", slow)
    for _ in range(5):
        setting.enforcing.tick()
    assert walks == 1


def test_all_poison_that_is_over_ends_at_once(debugfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever changes a hash while he walks through it begins anew, and may miss what he has not seen."""
    setting = Setting(debugfs).started()
    tables = setting.armed.verdicts
    for tgid in range(100, 105):
        tables.poison(Verdict(Key(tgid, 1), 0, now() - 1, 1, 1))
    tables.poison(Verdict(OTHER, 0, later(), 1, 1))

    def walked() -> Iterator[Verdict]:
        for verdict in list(Verdicts.poisoned(tables)):
            before = tables.count()
            yield verdict
            assert tables.count() == before

    monkeypatch.setattr(tables, "poisoned", walked)
    setting.enforcing.tick()
    assert setting.verdicts == {(OTHER, 0)}


def test_poison_that_was_prolonged_meanwhile_stays(debugfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a program, between the look at its time and its end."""
    setting = Setting(debugfs).started()
    tables = setting.armed.verdicts
    tables.poison(Verdict(ONE, 0, now() - 1, 1, 1))
    real = tables.expire

    def prolonged(verdict: Verdict) -> None:
        tables.poison(Verdict(ONE, 0, later(), 1, 1))
        real(verdict)

    monkeypatch.setattr(tables, "expire", prolonged)
    setting.enforcing.tick()
    assert setting.verdicts == {(ONE, 0)}


def test_protected_programs_are_known_by_file_and_replaced_with_the_policy(
    debugfs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program, gone = tmp_path / "sshd", tmp_path / "gone"
    program.write_text("old")
    setting = Setting(debugfs, protected=(str(program), str(gone))).started()
    assert f"{gone}: No such file" in caplog.text
    (first,) = setting.enforcing.enforcer.protected
    with program.open() as file:
        assert first == identify(file.fileno())
    assert list(setting.kernel.content["krie_protected"]) == [struct.pack("=QII", first.ino, first.dev, 0)]
    new = tmp_path / "new"
    new.write_text("upgraded")
    new.rename(program)
    open_files = len(os.listdir("/proc/self/fd"))
    setting.change()
    (second,) = setting.enforcing.enforcer.protected
    assert second != first
    assert list(setting.kernel.content["krie_protected"]) == [struct.pack("=QII", second.ino, second.dev, 0)]
    assert len(os.listdir("/proc/self/fd")) == open_files


def test_everything_is_let_go_of_at_the_end(debugfs: Path, tmp_path: Path) -> None:
    (tmp_path / "sshd").touch()
    before = len(os.listdir("/proc/self/fd"))
    setting = Setting(debugfs, protected=(str(tmp_path / "sshd"),)).started()
    assert len(os.listdir("/proc/self/fd")) == before + 4  # debugfs, the agent's folders, sshd
    setting.stack.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_policy_that_the_kernel_does_not_take_changes_nothing(debugfs: Path, tmp_path: Path) -> None:
    (tmp_path / "sshd").touch()
    setting = Setting(debugfs, protected=(str(tmp_path / "sshd"),), breaker_processes=1).started()
    for process in (ONE, OTHER):
        setting.hit(process)
    setting.kernel.full = True
    (tmp_path / "sshd").unlink()
    with pytest.raises(KernelError):
        setting.change()
    assert list(setting.enforcing.enforcer.protected.values()) == [str(tmp_path / "sshd")]
    (breaker,) = setting.enforcing.status()["breakers"]
    assert breaker["tripped"]


def texts(*names: str) -> Candidate:
    """A policy whose rules compare names, so that all of the kernel's maps are written."""
    conditions = [f'input.event.name == "{name}"' for name in names]
    made = subject(*((f"R{number}", "override", [each]) for number, each in enumerate(conditions)))
    numbers = Numbers(made.numbers.names, {Identity(1, 2, len(names)): 9})
    policy = Policy(made.engine, on_error=Action.LOG, memo=0)
    return Candidate(policy, made.tiers, numbers, Executables({}, {}, ()), ())


@pytest.mark.parametrize(
    "refused",
    [
        ("set", "krie_names"),
        ("set", "krie_programs"),
        ("set", "containment_own_maps"),
        ("set", "krie_protected"),
        ("set", "krie_named"),
        ("set", "krie_tables"),
        ("identify", ""),
        ("full", ""),
    ],
)
def test_a_policy_comes_into_force_wholly_or_not_at_all(
    debugfs: Path, tmp_path: Path, refused: tuple[str, str]
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.touch()
    setting = Setting(debugfs, protected=(str(one), str(other))).started()
    setting.enforcing.take_over(setting.enforcing.prepare(texts("a")))
    other.touch()

    def state() -> object:
        files, tier = len(os.listdir("/proc/self/fd")), setting.enforcing.tier
        content = {name: dict(each) for name, each in setting.kernel.content.items()}
        return content, files, tier.status(), tier.numbers, dict(setting.enforcing.enforcer.protected)

    before = state()
    setting.kernel.failing.add(refused)
    setting.kernel.full = refused == ("full", "")
    if refused == ("identify", ""):
        cast("Any", setting.armed).inspector.identify = _refuse
    with pytest.raises(KernelError):
        setting.enforcing.take_over(setting.enforcing.prepare(texts("a", "b")))
    assert state() == before
    event = build(Sample, decided_by=BY_TABLE, generation=setting.enforcing.tier.status()["generation"])
    assert setting.enforcing.tier.decided(event, Sample.NAME, "R0") == {"R0"}  # the number of a failed one is not used
    setting.kernel.failing.clear()
    setting.kernel.full = False
    cast("Any", setting.armed).inspector.identify = identify
    setting.enforcing.take_over(setting.enforcing.prepare(texts("a", "b")))
    assert setting.enforcing.tier.rules == {Sample.NAME: {"R0", "R1"}}
    assert len(setting.kernel.content["krie_protected"]) == 2


def _refuse(_: int) -> Identity:
    raise KernelError("running krie_inspect", 12)


@pytest.mark.parametrize("name", ["krie_names", "krie_programs", "containment_own_maps", "krie_protected"])
def test_what_cannot_be_tidied_up_is_told_and_no_end(
    debugfs: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = tmp_path / "one"
    one.touch()
    setting = Setting(debugfs, protected=(str(one),)).started()
    setting.enforcing.take_over(setting.enforcing.prepare(texts("a")))
    setting.kernel.failing.add(("remove", name))
    one.unlink()
    setting.enforcing.take_over(setting.enforcing.prepare(texts("b", "c")))
    assert setting.enforcing.tier.rules == {Sample.NAME: {"R0", "R1"}}
    assert "ENOMEM" in caplog.text


def test_status(debugfs: Path) -> None:
    setting = Setting(debugfs).started()
    own = Key(os.getpid(), 1)
    tables = setting.armed.verdicts
    kills = setting.number("KILLS")
    tables.poison(Verdict(ONE, 0, now() + 200 * 10**9, kills, 1))
    tables.poison(Verdict(own, 0, now() + 100 * 10**9, 0, 1))
    tables.bind(Verdict(ONE, Sample.KIND, later(), kills, 1))
    tables.bind_host(Verdict(Key(0, 0), 0, now() - 10**9, kills, 1))
    found = setting.enforcing.status()
    assert found["modes"] == {"observer": "observe", "sample": "enforce"}
    assert found["guard"] is True
    assert found["guarded_operations"] == {"refused": len(OPERATIONS), "of": len(OPERATIONS)}
    assert (found["poisoned_count"], found["bound_count"]) == (2, 1)
    first, second = found["poisoned"]  # those that end first come first
    assert (first["tgid"], first["comm"], first["rule"]) == (
        own.tgid,
        Path("/proc/self/comm").read_text().rstrip("\n"),
        "",
    )
    assert (second["tgid"], second["comm"], second["rule"]) == (ONE.tgid, "", "KILLS")
    assert 0 < first["left_s"] <= 100 < second["left_s"] <= 200
    assert found["host"] == {"rule": "KILLS", "left_s": 0}
    assert found["kernel_tier"]["rules"] == {Sample.NAME: ["KILLS", "REFUSES"]}


@pytest.mark.parametrize(("mode", "any_wanted"), [("observe", False), ("enforce", True)])
def test_whether_any_plugin_is_to_enforce(mode: str, any_wanted: bool) -> None:
    assert wanted(Config(plugins={"a": {}, "b": {"mode": mode}})) is any_wanted
    assert not wanted(Config())
