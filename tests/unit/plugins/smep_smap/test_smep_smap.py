"""The plugin without a kernel: which probes it declares, what it makes of the kernel's lists, and who is told blind."""

import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from krie.agent.blindness import blind_rules
from krie.agent.diagnosis import Report
from krie.errors import PluginError
from krie.events.event import EventTypes
from krie.kernel.features import Features
from krie.kernel.maps import possible_cpus
from krie.kernel.program import AttachType, Trap
from krie.kernel.symbols import Symbols
from krie.loader.messages import Request
from krie.loader.request import sensor_request
from krie.plugin.report import ProbeReport
from krie.plugins.smep_smap import baseline
from krie.plugins.smep_smap.baseline import Baseline
from krie.plugins.smep_smap.events import Activity, LostTrap, RegisterCheck
from krie.plugins.smep_smap.functions import FUNCTIONS, probed
from krie.plugins.smep_smap.plugin import SmepSmap, SmepSmapConfig
from krie.policy.embedded import EmbeddedEngine
from krie.policy.sources import read_sources
from krie.testing.events import build
from pydantic import ValidationError

RULES = EmbeddedEngine(read_sources([Path(__file__).parents[4] / "policies/smep_smap"], {})).rules
TYPES = EventTypes((RegisterCheck, LostTrap, Activity))


def config(**keys: Any) -> SmepSmapConfig:
    return SmepSmapConfig.model_validate(keys)


def test_each_function_has_an_entry_and_its_traps_and_each_place_its_own_number() -> None:
    probes = SmepSmap().krie_sensor(config(functions={"ptmx_open": "any"}), Features()).probes
    names = [each.name for each in probes]
    assert len(names) == 3 * (len(FUNCTIONS) + 1) - 2 == len(set(names))  # a busy one has no traps
    first = [each.alternatives[0].programs[-1] for each in probes]
    assert {each.argument & 0x3F for each in first} == {*range(1, 10), 32}
    by_name = dict(zip(names, first, strict=True))
    assert by_name["commit_creds"].argument == 1 | 0x40 | 0x100
    assert by_name["ptmx_open"].argument == 32
    assert by_name["commit_creds_near"].argument == 1 | 0x40 | 0x80
    assert by_name["commit_creds_far"].roaming > by_name["commit_creds_near"].roaming > 0
    assert not {"override_creds_near", "override_creds_far"} & set(names)  # each access to a file would pay for it
    variants = [each.programs[-1] for each in probes[0].alternatives]
    assert [each.target for each in variants[:2]] == ["commit_creds", "commit_creds.isra.0"]
    assert not variants[1].argument & 0x100  # nobody knows what it is given
    assert len(SmepSmap().krie_sensor(config(traps=False), Features()).probes) == len(FUNCTIONS)


def test_numbers_are_never_given_anew() -> None:
    assert [(each.number, each.name) for each in probed({"b": "any", "a": "process"})][8:] == [
        (9, "write_enabled_file_bool"),
        (32, "a"),
        (33, "b"),
    ]


@pytest.mark.parametrize("functions", [{"a b": "any"}, {"a": "softirq"}, {f"f{n}": "any" for n in range(17)}])
def test_functions_are_checked(functions: Mapping[str, str]) -> None:
    with pytest.raises(ValidationError):
        config(functions=functions)


def test_without_kprobes_it_says_so_once() -> None:
    features = Features(refused={AttachType.KPROBE: "no such type"}, tried=True)
    with pytest.raises(PluginError, match="can do nothing on this kernel: no such type"):
        SmepSmap().krie_sensor(config(), features)


_COUNT_BYTES = 48
"""Of one CPU: `struct smep_smap_count`, whose last 16 bytes are no counts."""


class Maps(dict[str, Any]):
    """Those that the plugin fills and reads."""

    def __init__(self) -> None:
        self.set_to = b""
        self.counts = bytes(_COUNT_BYTES)
        super().__init__(smep_smap_kernel=self, smep_smap_counts=self)

    def set(self, _: bytes, value: bytes) -> None:
        self.set_to = value

    def array(self) -> list[bytes]:
        return [bytes(_COUNT_BYTES * possible_cpus()), self.counts.ljust(_COUNT_BYTES * possible_cpus(), b"\0")]


KALLSYMS = """\
ffffffff81000000 T _stext
ffffffff81000040 T commit_creds
ffffffff81000100 T return_to_handler
ffffffff81000200 T arch_rethook_trampoline
ffffffff81001000 T _etext
ffffffff82000000 D init_cred
ffffffff83000000 B _end
ffffffffc0000000 t helper\t[krie_test]
"""


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    (tmp_path / "modules").write_text("krie_test 16384 0 - Live 0x0\n")
    (tmp_path / "kprobes").mkdir()
    monkeypatch.setattr(baseline, "_MODULES", tmp_path / "modules")
    monkeypatch.setattr(baseline, "Symbols", lambda wanted: Symbols(wanted, tmp_path / "kallsyms"))
    monkeypatch.setattr(baseline, "_KPROBES", tmp_path / "kprobes/list")
    return tmp_path


def test_the_program_learns_where_code_is(kernel: Path) -> None:
    maps = Maps()
    made = Baseline(maps, lambda: ())  # type: ignore[arg-type]
    text, text_end, modules, modules_end, init_cred, *trampolines, stack = struct.unpack("=9Q", maps.set_to)
    assert (text, text_end) == (0xFFFFFFFF81000000, 0xFFFFFFFF81001000)
    assert modules == 0xFFFFFFFF83000000 < 0xFFFFFFFFC0000000 < modules_end
    assert init_cred == 0xFFFFFFFF82000000
    assert trampolines == [0, 0xFFFFFFFF81000200, 0xFFFFFFFF81000100]
    assert stack == 0
    assert made.unknown == []


def test_the_program_learns_whether_the_stack_is_wanted(kernel: Path) -> None:
    maps = Maps()
    Baseline(maps, lambda: (), kernel_stack=True)  # type: ignore[arg-type]
    assert struct.unpack("=9Q", maps.set_to)[-1] == 1


def test_what_is_hidden_is_unknown_and_not_checked(kernel: Path) -> None:
    hidden = "".join(f"{0:016x} {line[17:]}\n" for line in KALLSYMS.splitlines())
    (kernel / "kallsyms").write_text(hidden)
    maps = Maps()
    assert len(Baseline(maps, lambda: ()).unknown) == 2  # type: ignore[arg-type]
    assert maps.set_to == bytes(72)


def test_addresses_get_names(kernel: Path) -> None:
    made = Baseline(Maps(), lambda: ())  # type: ignore[arg-type]
    stack = struct.pack("=2Q", 0xFFFFFFFF81000041, 0).ljust(128, b"\0")
    event = build(RegisterCheck, ip=0xFFFFFFFF81000044, return_address=0xFFFFFFFFC0000005, kernel_stack=stack)
    assert made.facts(event) == {
        "symbol": "commit_creds+0x4",
        "return_symbol": "helper+0x5 [krie_test]",
        "return_module": "krie_test",
        "stack_symbols": ["commit_creds+0x1"],
    }
    assert SmepSmap().krie_facts(RegisterCheck.NAME).keys() == made.facts(event).keys()  # type: ignore[union-attr]
    assert made.facts(build(RegisterCheck, return_address=0x1000))["return_symbol"] == ""


def test_a_module_that_came_meanwhile_has_a_name(kernel: Path) -> None:
    made = Baseline(Maps(), lambda: ())  # type: ignore[arg-type]
    (kernel / "kallsyms").write_text(f"{KALLSYMS}ffffffffc0000100 t other\t[new]\n")
    event = build(RegisterCheck, return_address=0xFFFFFFFFC0000101)
    assert made.facts(event)["return_module"] == "krie_test"  # no module came, as far as /proc/modules tells
    (kernel / "modules").write_text("krie_test 16384 1 - Live 0x0\n")
    assert made.facts(event)["return_module"] == "krie_test"  # nor does one that is used by another process
    (kernel / "modules").write_text("new 16384 0 - Live 0x0\n")
    assert made.facts(event)["return_symbol"] == "other+0x1 [new]"


LISTED = """\
ffffffff81000049  k  commit_creds+0x9    [OPTIMIZED]
ffffffff81000050  k  commit_creds+0x10    [DISABLED]
ffffffff81000050  k  commit_creds+0x10
ffffffffc0000060  k  override_creds+0x8    [GONE]
ffffffff81000070  k  override_creds+0x9
"""


def test_traps_that_are_gone_are_told(kernel: Path) -> None:
    (kernel / "kprobes/list").write_text(LISTED)
    places = [Trap("smep_smap.x", "commit_creds", offset) for offset in (0x9, 0x10, 0x20)]
    places += [Trap("smep_smap.y", "override_creds", offset) for offset in (0x8, 0x9)]
    told = list(Baseline(Maps(), lambda: places).scan())  # type: ignore[arg-type]
    assert [(each.offset, each.state) for each in told if isinstance(each, LostTrap)] == [
        (0x10, "disarmed"),
        (0x20, "vanished"),
        (0x8, "disarmed"),
    ]


def test_a_list_that_cannot_be_read_is_told_once(kernel: Path) -> None:
    made = Baseline(Maps(), lambda: [Trap("smep_smap.x", "commit_creds", 9)])  # type: ignore[arg-type]
    (told,) = made.scan()
    assert isinstance(told, LostTrap)
    assert (told.state, "No such file" in told.reason) == ("unreadable", True)
    assert list(made.scan()) == []


def test_what_was_checked_since_the_last_time_is_told(kernel: Path) -> None:
    (kernel / "kprobes/list").write_text("")
    maps = Maps()
    made = Baseline(maps, lambda: ())  # type: ignore[arg-type]
    assert list(made.scan()) == []
    maps.counts = struct.pack("=6Q", 7, 2, 1, 3, 1 << 63, 1 << 63)
    (told,) = made.scan()
    assert isinstance(told, Activity)
    assert (told.checks, told.failed, told.repeated, told.traced, told.busiest) == (7, 2, 1, 3, "commit_creds")
    maps.counts = struct.pack("=6Q", 9, 2, 1, 3, 1 << 63, 1 << 63)
    (told,) = made.scan()
    assert isinstance(told, Activity)
    assert (told.checks, told.failed) == (2, 0)


def report(name: str, state: str) -> ProbeReport:
    probe = next(each for each in SmepSmap().krie_sensor(config(), Features()).probes if each.name == name)
    alternative = probe.alternatives[0] if state != "missing" else None
    return ProbeReport("smep_smap", probe, alternative, state, {})


def test_rules_are_blind_only_where_no_function_is_probed() -> None:
    gone = [report("commit_creds", "missing"), report("override_creds", "missing")]
    assert {each.rule.id for each in blind_rules(RULES, gone, TYPES)} == {"SMEP001", "SMEP002", "SMEP003", "SMEP004"}
    assert list(blind_rules(RULES, [report("commit_creds", "alive"), *gone[1:]], TYPES)) == []
    assert list(blind_rules(RULES, [gone[0], report("override_creds", "attached")], TYPES)) == []


@pytest.mark.parametrize(
    ("name", "state", "healthy"),
    [("override_creds", "missing", True), ("override_creds", "silent", False), ("commit_creds", "alive", True)],
)
def test_what_a_kernel_may_do_without_is_no_failure(name: str, state: str, healthy: bool) -> None:
    found = Report(None, "", "", {}, {}, (report(name, state),), (), (), 0, (), (), {}, ())
    assert found.healthy is healthy
    needed = replace(report(name, state), probe=replace(report(name, state).probe, optional=False))
    assert replace(found, probes=(needed,)).healthy is (state == "alive")


def test_programs_that_share_a_function_survive_the_channel() -> None:
    request = Request((sensor_request(SmepSmap().krie_sensor(config(), Features())),), 16, True)
    assert Request.from_json(request.to_json()) == request
    labels = {program.label for probe in request.options.values() for each in probe for program in each.programs}
    assert set(request.source("smep_smap").programs) == labels
    first = {program.label for probe in request.options.values() for program in probe[0].programs}
    assert len(first) == 3 * len(FUNCTIONS) - 1  # those of two places are never told by one number
