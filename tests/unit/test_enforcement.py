"""What lives as long as the agent enforces: begin, end, each second, a new policy, administrators, breakers."""

import logging
import os
import struct
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest
from krie import Action, Alternative, AttachType, Enforcement, Event, FiredRule, KernelError, Probe, Program, Sensor
from krie.agent.enforcement import Enforcing, wanted
from krie.agent.heart import Heart
from krie.config import Config
from krie.decision import Decision, Mode, merge
from krie.enforce.containment import containment_sensor
from krie.enforce.self_defence import Guard, Held
from krie.enforce.verdicts import Verdict
from krie.events.core_maps import Flags
from krie.events.enforcement import Breaker, Cleared, Contained, Gap, Guarded
from krie.events.event import BY_TABLE
from krie.events.identity import Identity, Key
from krie.events.operations import GUARDED, OPERATIONS
from krie.plugin.report import ProbeReport
from krie.policy.policy import Policy
from krie.processes.executables import Executables
from krie.processes.peer import Peer
from krie.processes.principal import Principal
from krie.testing.events import build
from krie.tier.candidate import Candidate
from krie.tier.domain import Numbers

from ..policy.test_classify import Sample
from ..policy.test_tables import subject
from .kernel_side import AGENT, KernelSide, armed, identify

SENSOR = Sensor("sample", "1", events=(Sample,))
OBSERVER = Sensor("observer", "1")
MADE = subject(
    ("REFUSES", "override", ["input.process.uid == 5"]),
    ("KILLS", "kill", ["input.process.uid == 6"]),
)
ONE, OTHER = Key(4_194_000, 7 * 10**9), Key(4_194_001, 8 * 10**9)  # nobody on this machine
ADMIN = Peer(1234, 0)


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def later() -> int:
    return now() + 3600 * 10**9


def contained(state: str = "alive") -> list[ProbeReport]:
    return [
        ProbeReport("containment", each, None if state == "missing" else each.alternatives[0], state, {"lsm": "EPERM"})
        for each in containment_sensor().probes
    ]


def candidate() -> Candidate:
    policy = Policy(MADE.engine, on_error=Action.LOG, memo=0)
    return Candidate(policy, MADE.tiers, MADE.numbers, Executables({}, {}, ()), ())


class Setting:
    def __init__(self, debugfs: Path, *, state: str = "alive", mode: Mode = Mode.ENFORCE, **config: object) -> None:
        self.kernel, self.debugfs = KernelSide(), debugfs
        self.reports = contained(state)
        modes = {"sample": mode, "observer": Mode.OBSERVE}
        self.armed = armed(self.kernel, OBSERVER, SENSOR, reports=self.reports, modes=modes)
        self.stack = ExitStack()
        settings = Config.model_validate({"enforcement": config})
        self.enforcing = Enforcing(
            settings,
            self.armed.levers(),
            self.armed.sending,
            self.armed.sensors,
            self.armed.types,
            self.armed.plugins,
            self.armed.probes,
            self.stack,
            self.kernel.tables,
            self._guard,
            agent_tgid=AGENT,
            principal_of=lambda event: Principal("lineage", Key(event.tgid, event.start_time)),
        )

    def _guard(self) -> Guard:
        return Guard(lambda: os.open(self.debugfs, os.O_PATH), lambda: (), self.debugfs / "sysrq")

    def started(self) -> "Setting":
        self.enforcing.start(candidate())
        return self

    def change(self) -> None:
        """Another policy comes into force."""
        self.enforcing.take_over(self.enforcing.prepare(candidate()))

    @property
    def verdicts(self) -> "set[tuple[Key, int]]":
        tables = self.armed.verdicts
        return {(each.process, each.kind) for each in (*tables.poisoned(), *tables.bound())}

    def told(self, event: type[Event]) -> list[dict[str, object]]:
        return [fields for each, fields in self.enforcing.tick() if each is event]

    @property
    def held_back(self) -> list[str]:
        """Rules that may only refuse in the kernel."""
        return list(self.enforcing.tier.status()["only_refuse"])

    def number(self, rule: str) -> int:
        """By which the kernel's tables know a rule."""
        return self.enforcing.enforcer._rules.number(rule)

    def hit(self, process: Key, rule: str = "KILLS") -> None:
        """The kernel decided an event by a rule of its table."""
        event = build(
            Sample,
            tgid=process.tgid,
            start_time=process.start_time,
            exe_ino=5,
            decided_by=BY_TABLE,
            done=7,
            generation=1,
        )
        self.enforcing.enforcer(event, decision(rule))


def decision(rule: str) -> Decision:
    action = Action.KILL if rule == "KILLS" else Action.OVERRIDE
    return merge([FiredRule(rule, action)], tier="kernel", revision="r")


@pytest.fixture
def debugfs(tmp_path: Path) -> Path:
    (tmp_path / "debugfs/kprobes").mkdir(parents=True)
    (tmp_path / "debugfs/kprobes/enabled").write_text("1\n")
    return tmp_path / "debugfs"


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


@pytest.mark.parametrize(("state", "guard"), [("missing", True), ("alive", False)])
def test_the_agent_is_guarded_where_that_is_wanted_and_can_be(debugfs: Path, state: str, guard: bool) -> None:
    setting = Setting(debugfs, state=state, guard=guard).started()
    assert Flags.GUARD not in setting.armed.verdicts.flags()
    assert setting.enforcing.status()["guard"] is False
    assert struct.pack("=I", 1) in setting.kernel.content["krie_enforcing"].values()  # and yet enforces


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
    tables.bind(Verdict(ONE, Sample.KIND, later(), 1, 1))
    tables.bind(Verdict(OTHER, Sample.KIND, now() - 1, 1, 1))
    tables.bind_host(Verdict(Key(0, 0), 0, later(), 1, 1))
    setting.enforcing.tick()
    assert setting.verdicts == {(OTHER, 0), (ONE, Sample.KIND)}
    assert tables.host() is not None
    tables.bind_host(Verdict(Key(0, 0), 0, now() - 1, 1, 1))
    setting.enforcing.tick()
    assert tables.host() is None
    assert Flags.GUARD in tables.flags()


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


def test_disarmed_kprobes_are_told_once_each_time(debugfs: Path) -> None:
    setting = Setting(debugfs).started()
    assert setting.told(Guarded) == []
    told = []
    for state in ("0", "0", "1", "0"):
        (debugfs / "kprobes/enabled").write_text(f"{state}\n")
        told.append([each["attempt"] for each in setting.told(Guarded)])
    assert told == [["kprobes_off"], [], [], ["kprobes_off"]]


def test_what_was_attached_again_is_guarded(debugfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(debugfs).started()
    guard = vars(setting.enforcing.guarding)["_guard"]
    monkeypatch.setattr(guard, "_held", lambda: (Held("link", 4711, ""),))
    setting.enforcing.guarding.rearm()
    assert setting.kernel.content["containment_own_links"].keys() == {(4711).to_bytes(4, "little")}


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
    assert len(os.listdir("/proc/self/fd")) == before + 2
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


@pytest.mark.parametrize(
    ("tgid", "rule", "left", "answer"),
    [
        (ONE.tgid, None, {(OTHER, 0), (OTHER, Sample.KIND), "host"}, (1, 1)),
        (None, "KILLS", {(ONE, 0), (OTHER, Sample.KIND)}, (1, 2)),
        (None, "REFUSES", {(OTHER, 0), (ONE, Sample.KIND), "host"}, (1, 1)),
        (None, None, set(), (2, 3)),
        (99, None, {(ONE, 0), (OTHER, 0), (ONE, Sample.KIND), (OTHER, Sample.KIND), "host"}, (0, 0)),
    ],
)
def test_an_administrator_takes_back(
    debugfs: Path, tgid: int | None, rule: str | None, left: set[object], answer: tuple[int, int]
) -> None:
    setting = Setting(debugfs).started()
    tables = setting.armed.verdicts
    number = {name: setting.number(name) for name in ("KILLS", "REFUSES")}
    tables.poison(Verdict(ONE, 0, later(), number["REFUSES"], 1))
    tables.poison(Verdict(OTHER, 0, later(), number["KILLS"], 1))
    tables.bind(Verdict(ONE, Sample.KIND, later(), number["KILLS"], 1))
    tables.bind(Verdict(OTHER, Sample.KIND, later(), number["REFUSES"], 1))
    tables.bind_host(Verdict(Key(0, 0), 0, later(), number["KILLS"], 1))
    found = setting.enforcing.clearing.clear(tgid, rule, ADMIN)
    assert (found["poisoned"], found["verdicts"]) == answer
    assert setting.verdicts | ({"host"} if tables.host() is not None else set()) == left
    (told,) = setting.told(Cleared)
    assert (told["processes"], told["verdicts"], told["by_tgid"], told["by_uid"]) == (*answer, ADMIN.tgid, ADMIN.uid)


def test_a_rule_that_kills_too_many_only_refuses_in_the_kernel(debugfs: Path, caplog: pytest.LogCaptureFixture) -> None:
    setting = Setting(debugfs, breaker_processes=1, breaker_period_s=60).started()
    for process in (ONE, OTHER):
        setting.hit(process, "REFUSES")
    setting.hit(ONE)
    assert setting.held_back == []
    setting.hit(OTHER)
    assert setting.held_back == ["KILLS"]
    assert "until krie clear --rule KILLS" in caplog.text
    (told,) = setting.told(Breaker)
    assert told == {"rule": "KILLS", "processes": 2, "period_s": 60, "state": "tripped"}
    (shown,) = setting.enforcing.status()["breakers"]
    assert shown == {"rule": "KILLS", "processes": 2, "of": 1, "tripped": True}
    assert setting.enforcing.clearing.clear(None, "REFUSES", ADMIN)["rearmed"] == []
    assert setting.enforcing.clearing.clear(ONE.tgid, None, ADMIN)["rearmed"] == []
    assert setting.enforcing.clearing.clear(None, "KILLS", ADMIN)["rearmed"] == ["KILLS"]
    assert setting.held_back == []
    assert [each["state"] for each in setting.told(Breaker)] == ["rearmed"]


def test_a_reload_arms_breakers_anew(debugfs: Path) -> None:
    setting = Setting(debugfs, breaker_processes=1).started()
    for process in (ONE, OTHER):
        setting.hit(process)
    assert setting.held_back == ["KILLS"]
    setting.change()
    assert setting.held_back == []
    assert setting.enforcing.status()["breakers"] == []


def test_tables_that_cannot_be_changed_are_an_error_and_no_end(debugfs: Path, caplog: pytest.LogCaptureFixture) -> None:
    setting = Setting(debugfs, breaker_processes=1).started()
    setting.kernel.full = True
    for process in (ONE, OTHER):
        setting.hit(process)
    assert "the kernel's tables stay as they are, tripped breakers included" in caplog.text
    assert [each["state"] for each in setting.told(Breaker)] == ["tripped"]


def test_who_may_not_clear_is_refused_and_told(debugfs: Path) -> None:
    setting = Setting(debugfs, clear="init").started()
    setting.armed.verdicts.poison(Verdict(ONE, 0, later(), 0, 1))
    with pytest.raises(ValueError, match="only tgid 1"):
        setting.enforcing.clearing.clear(None, None, ADMIN)
    assert setting.verdicts == {(ONE, 0)}
    (told,) = setting.told(Guarded)
    assert (told["attempt"], told["stranger_tgid"]) == ("clear_refused", ADMIN.tgid)
    assert setting.enforcing.clearing.clear(None, None, Peer(1, 0))["poisoned"] == 1


def test_where_all_observe_root_may_clear(debugfs: Path) -> None:
    setting = Setting(debugfs, mode=Mode.OBSERVE, clear="init").started()
    assert setting.enforcing.clearing.clear(None, None, ADMIN)["poisoned"] == 0


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


@pytest.mark.parametrize(("mode", "any_wanted"), [("observe", False), ("enforce", True)])
def test_whether_any_plugin_is_to_enforce(mode: str, any_wanted: bool) -> None:
    assert wanted(Config(plugins={"a": {}, "b": {"mode": mode}})) is any_wanted
    assert not wanted(Config())


@pytest.fixture(autouse=True)
def all_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
